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
_ENOUGH_ATTENTION = 0.9
_COPIED_CELLS = 1.5  # width of the column of copy probabilities


def attention_heatmap(
    weights: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    copied: Sequence[float] | None = None,
    max_tokens: int = 60,
) -> NDArray[np.uint8]:
    """Draws attention weights with source tokens along the top and output tokens down the side.

    Of a source longer than `max_tokens` the tokens that get most attention are drawn, the fewest that get 90 % of
    it, in their order and with their positions (from 1); a line stands where some are left out.

    Args:
        weights: [T, S], 0 to 1; row t says where output token t looked. Values that are not finite stay grey.
        source_tokens: S labels. Characters that no installed font holds show as boxes.
        target_tokens: T labels.
        copied: T probabilities that the output token was copied, drawn beside its row.
        max_tokens: Only so many of each are drawn, of the output from its start; the axes say so.

    Returns:
        The picture, uint8 [height, width, 3].

    Raises:
        ValueError: The shape of the weights is not that of the labels, or there is nothing to draw, or the copy
            probabilities are not as many as the output tokens.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    _check(matrix, source_tokens, target_tokens, copied=copied)
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(len(target_tokens), max_tokens)
    columns = drawn_columns(matrix[:rows], max_tokens)
    shown = matrix[:rows, columns]
    partly = len(columns) < len(source_tokens)
    across = [_label(source_tokens[i]) + (f" {i + 1}" if partly else "") for i in columns]
    down = [_label(token) for token in target_tokens[:rows]]
    fonts = {"font.family": ["DejaVu Sans", *_installed_wide_fonts()], "font.size": 8, "text.usetex": False}
    # The user's matplotlibrc, a dark one say, has no part in this; a missing glyph is no news either.
    with matplotlib.style.context(["default", fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        width = 1.8 + _CHARACTER_INCHES * max(map(len, down)) + _CELL_INCHES * max(len(columns) + 3, 8)
        height = 1.0 + _CHARACTER_INCHES * max(map(len, across)) + _CELL_INCHES * max(rows, 4)
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        # Dark cells on white paper; the scale ends at the largest weight so that spread-out rows show too.
        top = shown.max(initial=0.0, where=np.isfinite(shown)) or 1.0
        blues = matplotlib.colormaps["Blues"].with_extremes(bad="lightgrey")
        image = axes.imshow(shown, cmap=blues, vmin=0.0, vmax=top, aspect="equal", interpolation="nearest")
        _label_axes(axes, across, down)
        _mark_gaps(axes, columns, len(source_tokens))
        if copied is not None:
            _draw_copied(axes, copied[:rows], len(columns))
        axes.set_xlabel(_source_title(matrix[:rows], columns))
        axes.set_ylabel("output tokens" + ("" if rows == len(target_tokens) else f" (first {rows} of {len(matrix)})"))
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02).set_label("attention")
        canvas: Any = FigureCanvasAgg(figure)  # whose methods carry no types
        figure.draw_without_rendering()  # the layout of square cells fits at the second try
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _check(
    matrix: NDArray[np.float64],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    copied: Sequence[float] | None,
) -> None:
    if matrix.shape != (len(target_tokens), len(source_tokens)) or not matrix.size:
        raise ValueError(
            f"attention of shape {matrix.shape} does not fit {len(target_tokens)} output tokens "
            f"and {len(source_tokens)} source tokens"
        )
    if copied is not None and len(copied) != len(target_tokens):
        raise ValueError(f"{len(copied)} copy probabilities do not fit {len(target_tokens)} output tokens")


def drawn_columns(matrix: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Which of the columns of [T, S] are drawn, from left to right: all, or those with the largest sums."""
    if matrix.shape[1] <= limit:
        return np.arange(matrix.shape[1])
    totals = matrix.sum(axis=0, where=np.isfinite(matrix))
    order = np.argsort(-totals, kind="stable")
    enough = np.searchsorted(totals[order].cumsum(), _ENOUGH_ATTENTION * totals.sum()) + 1
    return np.sort(order[: min(limit, int(enough))])


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


def _mark_gaps(axes: "Axes", columns: NDArray[np.int64], count: int) -> None:
    """Draws a line wherever source tokens are left out of the `count` there are."""
    ends = np.concatenate([[-1], columns, [count]])
    for place in np.flatnonzero(np.diff(ends) > 1):
        axes.axvline(place - 0.5, color="0.55", linewidth=1.0)


def _draw_copied(axes: "Axes", copied: Sequence[float], columns: int) -> None:
    """Draws each row's copy probability in percent, right of the `columns` of attention."""
    left, rows = columns + 0.5, len(copied)
    values = np.asarray(copied, dtype=np.float64).reshape(-1, 1)
    extent = (left, left + _COPIED_CELLS, rows - 0.5, -0.5)
    axes.imshow(values, cmap="Oranges", vmin=0.0, vmax=1.0, extent=extent, aspect="equal", interpolation="nearest")
    middle = left + _COPIED_CELLS / 2
    for row, value in enumerate(values[:, 0]):
        color = "white" if value > 0.6 else "black"
        axes.text(middle, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.text(middle, -0.7, "copied, %", rotation=90, ha="center", va="bottom")
    axes.set_xlim(-0.5, left + _COPIED_CELLS)
    axes.set_ylim(rows - 0.5, -0.5)


def _source_title(matrix: NDArray[np.float64], columns: NDArray[np.int64]) -> str:
    if len(columns) == matrix.shape[1]:
        return "source tokens"
    finite = np.where(np.isfinite(matrix), matrix, 0.0)
    share = finite[:, columns].sum() / (finite.sum() or 1.0)
    return f"source tokens: the {len(columns)} of {matrix.shape[1]}\nthat get most attention, {100 * share:.0f} % of it"


def _label(token: str) -> str:
    """Shortens a token and shows what is invisible in it: spaces as ␣, control characters as �."""
    visible = "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in token.replace(" ", "␣"))
    return visible if len(visible) <= _LONGEST_LABEL else visible[: _LONGEST_LABEL - 1] + "…"


@cache
def _installed_wide_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _WIDE_FONTS if name in installed)
