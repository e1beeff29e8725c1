"""Attention heat maps."""

import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2seq.runs.tables import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Fonts with Chinese, Japanese and Korean characters, tried in this order after matplotlib's own, which has Latin,
# Greek, Cyrillic, Arabic and Hebrew; only installed fonts are passed to matplotlib.
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
_CELL_INCHES = 0.22
_CHARACTER_INCHES = 0.08  # width of a wide letter at 8 points
_DPI = 110
_MAX_LABEL_CHARACTERS = 16
_MIN_ATTENTION_SHARE = 0.9
_COPY_COLUMN_CELLS = 1.5  # width of the column of copy probabilities


def attention_heatmap(
    weights: ArrayLike,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    copy_probs: Sequence[float] | None = None,
    max_tokens: int = 60,
) -> NDArray[np.uint8]:
    """Draws attention weights with source tokens along the top and output tokens down the side.

    For a source longer than `max_tokens`, only the tokens with the most attention are drawn: the fewest that get
    90 % of it, in source order and labelled with their positions (from 1); a line marks each gap.

    Args:
        weights: [T, S], 0 to 1; row t is the attention of output token t. Non-finite values are drawn grey.
        source_tokens: S labels. Characters that no installed font has are drawn as boxes.
        target_tokens: T labels.
        copy_probs: T probabilities that the output token was copied, drawn beside its row.
        max_tokens: Maximum number of tokens per axis; the output is cut at its end. The axis titles say so.

    Returns:
        The image, uint8 [height, width, 3].

    Raises:
        ValueError: The shape of the weights does not match the labels, there is nothing to draw, or the number of
            copy probabilities is not that of the output tokens.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    _check(matrix, source_tokens, target_tokens, copy_probs=copy_probs)
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_rows = min(len(target_tokens), max_tokens)
    columns = drawn_columns(matrix[:num_rows], max_tokens)
    shown = matrix[:num_rows, columns]
    is_shortened = len(columns) < len(source_tokens)
    column_labels = [_label(source_tokens[i]) + (f" {i + 1}" if is_shortened else "") for i in columns]
    row_labels = [_label(token) for token in target_tokens[:num_rows]]
    fonts = {"font.family": ["DejaVu Sans", *_installed_cjk_fonts()], "font.size": 8, "text.usetex": False}
    # Ignore the user's matplotlibrc (a dark style, say) and warnings of missing glyphs.
    with matplotlib.style.context(["default", fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        width = 1.8 + _CHARACTER_INCHES * max(map(len, row_labels)) + _CELL_INCHES * max(len(columns) + 3, 8)
        height = 1.0 + _CHARACTER_INCHES * max(map(len, column_labels)) + _CELL_INCHES * max(num_rows, 4)
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        # The color scale ends at the largest weight, so that rows with diffuse attention are visible too.
        max_weight = shown.max(initial=0.0, where=np.isfinite(shown)) or 1.0
        blues = matplotlib.colormaps["Blues"].with_extremes(bad="lightgrey")
        image = axes.imshow(shown, cmap=blues, vmin=0.0, vmax=max_weight, aspect="equal", interpolation="nearest")
        _label_axes(axes, column_labels, row_labels)
        _mark_gaps(axes, columns, len(source_tokens))
        if copy_probs is not None:
            _draw_copy_probs(axes, copy_probs[:num_rows], len(columns))
        axes.set_xlabel(_source_title(matrix[:num_rows], columns))
        shown_rows = "" if num_rows == len(target_tokens) else f" (first {num_rows} of {len(matrix)})"
        axes.set_ylabel(f"output tokens{shown_rows}")
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02).set_label("attention")
        canvas: Any = FigureCanvasAgg(figure)  # its methods have no type annotations
        figure.draw_without_rendering()  # square cells need a second layout pass to fit
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _check(
    matrix: NDArray[np.float64],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    copy_probs: Sequence[float] | None,
) -> None:
    if matrix.shape != (len(target_tokens), len(source_tokens)) or not matrix.size:
        raise ValueError(
            f"attention of shape {matrix.shape} does not fit {len(target_tokens)} output tokens "
            f"and {len(source_tokens)} source tokens"
        )
    if copy_probs is not None and len(copy_probs) != len(target_tokens):
        raise ValueError(f"{len(copy_probs)} copy probabilities do not fit {len(target_tokens)} output tokens")


def drawn_columns(matrix: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Returns the indices of the columns of [T, S] to draw, ascending: all, or those with the largest sums."""
    if matrix.shape[1] <= limit:
        return np.arange(matrix.shape[1])
    totals = matrix.sum(axis=0, where=np.isfinite(matrix))
    order = np.argsort(-totals, kind="stable")
    num_needed = np.searchsorted(totals[order].cumsum(), _MIN_ATTENTION_SHARE * totals.sum()) + 1
    return np.sort(order[: min(limit, int(num_needed))])


def _label_axes(axes: "Axes", column_labels: Sequence[str], row_labels: Sequence[str]) -> None:
    """Draws a labelled tick at every row and column, and grid lines between the cells."""
    # Without parse_math=False a dollar sign starts a formula.
    axes.set_xticks(range(len(column_labels)), column_labels, rotation=90, parse_math=False)
    axes.set_yticks(range(len(row_labels)), row_labels, parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=2, pad=2)
    axes.set_xticks(np.arange(len(column_labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(row_labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _mark_gaps(axes: "Axes", columns: NDArray[np.int64], num_tokens: int) -> None:
    """Draws a line wherever some of the `num_tokens` source tokens are left out."""
    bounds = np.concatenate([[-1], columns, [num_tokens]])
    for gap in np.flatnonzero(np.diff(bounds) > 1):
        axes.axvline(gap - 0.5, color="0.55", linewidth=1.0)


def _draw_copy_probs(axes: "Axes", copy_probs: Sequence[float], num_columns: int) -> None:
    """Draws each row's copy probability in percent, to the right of the attention's `num_columns`."""
    left, num_rows = num_columns + 0.5, len(copy_probs)
    values = np.asarray(copy_probs, dtype=np.float64).reshape(-1, 1)
    extent = (left, left + _COPY_COLUMN_CELLS, num_rows - 0.5, -0.5)
    axes.imshow(values, cmap="Oranges", vmin=0.0, vmax=1.0, extent=extent, aspect="equal", interpolation="nearest")
    middle = left + _COPY_COLUMN_CELLS / 2
    for row, value in enumerate(values[:, 0]):
        color = "white" if value > 0.6 else "black"
        axes.text(middle, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.text(middle, -0.7, "copied, %", rotation=90, ha="center", va="bottom")
    axes.set_xlim(-0.5, left + _COPY_COLUMN_CELLS)
    axes.set_ylim(num_rows - 0.5, -0.5)


def _source_title(matrix: NDArray[np.float64], columns: NDArray[np.int64]) -> str:
    if len(columns) == matrix.shape[1]:
        return "source tokens"
    finite = np.where(np.isfinite(matrix), matrix, 0.0)
    share = finite[:, columns].sum() / (finite.sum() or 1.0)
    return f"source tokens: the {len(columns)} of {matrix.shape[1]}\nthat get most attention, {100 * share:.0f} % of it"


def _label(token: str) -> str:
    """Shortens a token and makes invisible characters visible: spaces as ␣, control characters as �."""
    visible = "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in token.replace(" ", "␣"))
    return shorten(visible, _MAX_LABEL_CHARACTERS)


@cache
def _installed_cjk_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _CJK_FONTS if name in installed)
