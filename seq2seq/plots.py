"""Pictures of what a model does: attention as a heat map."""

import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Fonts that hold Chinese, Japanese and Korean, in the order they are tried after matplotlib's own, which
# holds Latin, Greek, Cyrillic, Arabic and Hebrew; only installed ones are named to matplotlib.
_WIDE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
_CELL_INCHES = 0.22
_CHARACTER_INCHES = 0.08  # of a wide letter in 8 point
_DPI = 110
_LONGEST_LABEL = 16


def attention_heatmap(
    weights: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    max_tokens: int = 60,
) -> NDArray[np.uint8]:
    """Draws attention weights with source tokens along the top and output tokens down the side.

    Args:
        weights: [T, S], 0 to 1; row t says where output token t looked. Values that are not finite stay grey.
        source_tokens: S labels. Characters that no installed font holds show as boxes.
        target_tokens: T labels.
        max_tokens: Only so many of each are drawn, from the start; the axis says so.

    Returns:
        The picture, uint8 [height, width, 3].

    Raises:
        ValueError: The shape of the weights is not that of the labels, or there is nothing to draw.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.shape != (len(target_tokens), len(source_tokens)) or not matrix.size:
        raise ValueError(
            f"attention of shape {matrix.shape} does not fit {len(target_tokens)} output tokens "
            f"and {len(source_tokens)} source tokens"
        )
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = matrix[:max_tokens, :max_tokens]
    rows, columns = shown.shape
    across = [_label(token) for token in source_tokens[:columns]]
    down = [_label(token) for token in target_tokens[:rows]]
    fonts = {"font.family": ["DejaVu Sans", *_installed_wide_fonts()], "font.size": 8, "text.usetex": False}
    # The user's matplotlibrc, a dark one say, has no part in this; a missing glyph is no news either.
    with matplotlib.style.context(["default", fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        width = 1.8 + _CHARACTER_INCHES * max(map(len, down)) + _CELL_INCHES * max(columns, 8)
        height = 0.8 + _CHARACTER_INCHES * max(map(len, across)) + _CELL_INCHES * max(rows, 4)
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        # Dark cells on white paper; the scale ends at the largest weight so that spread-out rows show too.
        top = shown.max(initial=0.0, where=np.isfinite(shown)) or 1.0
        image = axes.imshow(shown, cmap="Blues", vmin=0.0, vmax=top, aspect="equal", interpolation="nearest")
        axes.set_facecolor("lightgrey")
        _label_axes(axes, across, down)
        axes.set_xlabel(_axis_title("source", columns, len(source_tokens)))
        axes.set_ylabel(_axis_title("output", rows, len(target_tokens)))
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02).set_label("attention")
        canvas: Any = FigureCanvasAgg(figure)  # whose methods carry no types
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _label_axes(axes: "Axes", across: Sequence[str], down: Sequence[str]) -> None:
    """Puts a tick with its label at every cell, and lines between the cells."""
    # Without parse_math=False a dollar sign starts a formula.
    axes.set_xticks(range(len(across)), across, rotation=90, parse_math=False)
    axes.set_yticks(range(len(down)), down, parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=2, pad=2)
    axes.set_xticks(np.arange(len(across) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(down) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _axis_title(side: str, shown: int, count: int) -> str:
    return f"{side} tokens" if shown == count else f"{side} tokens (first {shown} of {count})"


def _label(token: str) -> str:
    """Shortens a token and shows what is invisible in it: spaces as ␣, control characters as �."""
    visible = "".join(
        "�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in token.replace("\n", "⏎").replace(" ", "␣")
    )
    return visible if len(visible) <= _LONGEST_LABEL else visible[: _LONGEST_LABEL - 1] + "…"


@cache
def _installed_wide_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _WIDE_FONTS if name in installed)
