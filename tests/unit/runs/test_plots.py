import itertools
import warnings

import matplotlib
import numpy as np
import pytest

from seq2seq.runs.plots import attention_heatmap, drawn_columns


def dark_cells(image):
    """Marks what the darkest blue of the colour map covers."""
    red, blue = image[:, :, 0].astype(int), image[:, :, 2].astype(int)
    return (red < 30) & (blue > 80)


def test_source_runs_along_x_and_output_down_y():
    # One weight in the upper right corner: first output token, last source token.
    weights = np.zeros((6, 10))
    weights[0, 9] = 1.0
    image = attention_heatmap(weights, list("abcdefghij"), list("uvwxyz"))
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    height, width = image.shape[:2]
    rows, columns = np.nonzero(dark_cells(image)[:, : int(width * 0.85)])  # without the colour bar
    assert columns.mean() > width * 0.6
    assert rows.mean() < height * 0.5
    assert (image[:, :2] == 255).all()  # white paper


def test_size_grows_with_the_tokens_up_to_a_limit():
    def shape(rows, columns):
        return attention_heatmap(np.ones((rows, columns)), ["a"] * columns, ["b"] * rows).shape

    assert shape(12, 15)[0] > shape(6, 15)[0]
    assert shape(6, 30)[1] > shape(6, 15)[1]
    assert max(shape(90, 200)) < 2000


@pytest.mark.parametrize(
    "label",
    [
        "日本語",
        "مرحبا",
        "שלום",
        "ไทย",
        "हिन्दी",
        "👍",
        "$x_1$",
        "$",
        "a\nb",
        "\x00",
        "▁the",
        "w" * 300,
        "",
        "\ud800",
    ],
)
def test_any_label_draws_without_warnings(label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = attention_heatmap([[0.5, 0.5], [1.0, 0.0]], [label, "b"], ["c", label])
    assert image.shape[0] < 1000
    assert image.shape[1] < 1000


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_weights_without_a_scale(value):
    weights = np.full((2, 3), value, dtype=np.float32)
    assert attention_heatmap(weights, list("abc"), list("de")).shape[2] == 3


def test_users_settings_and_global_state_stay_out_of_it():
    weights = np.eye(4)
    plain = attention_heatmap(weights, list("abcd"), list("efgh"))
    with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "white", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        dark = attention_heatmap(weights, list("abcd"), list("efgh"))
        assert dict(matplotlib.rcParams) == before
    assert np.array_equal(plain, dark)


def test_of_a_long_source_what_gets_most_attention_is_drawn_in_order():
    weights = np.full((3, 300), 1e-4)
    weights[0, 250] = weights[1, 7] = weights[2, 199] = 0.9
    assert drawn_columns(weights, 60).tolist() == [7, 199, 250]  # 2.7 of 2.73
    assert drawn_columns(np.full((3, 300), 1 / 300), 60).tolist() == list(range(60))  # all alike: the first
    assert drawn_columns(weights[:, :60], 60).tolist() == list(range(60))  # a short source is drawn whole
    assert len(drawn_columns(np.full((3, 300), np.nan), 60)) <= 60
    image = attention_heatmap(weights, [f"word{i}" for i in range(300)], list("abc"))
    rows, columns = np.nonzero(dark_cells(image)[:, : int(image.shape[1] * 0.75)])
    middles = [columns[(rows >= low) & (rows < high)].mean() for low, high in thirds(rows)]
    assert middles[1] < middles[2] < middles[0]


def test_nothing_is_cut_off():
    for count, copied in ((300, [0.5] * 14), (9, None)):
        weights = np.full((14, count), 1e-5)
        weights[np.arange(14), np.arange(14) * count // 20] = 1.0
        image = attention_heatmap(weights, ["▁abcdefghij"] * count, ["▁klmnopq"] * 14, copy_probs=copied)
        for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
            assert (edge == 255).all()


def thirds(rows):
    """The heights of three rows of cells, given those of all their dark pixels."""
    edges = np.linspace(rows.min(), rows.max() + 1, 4)
    return list(itertools.pairwise(edges))


def test_copy_probabilities_stand_beside_their_rows():
    def orange(copied):
        image = attention_heatmap(np.eye(4), list("abcd"), list("efgh"), copy_probs=copied)
        red, blue = image[:, :, 0].astype(int), image[:, :, 2].astype(int)
        return np.nonzero((red > 110) & (blue < 40))[0]  # heights of what the upper end of the scale covers

    assert orange([0.0, 0.0, 0.0, 0.0]).size == 0
    assert orange([1.0, 0.0, 0.0, 0.0]).mean() < orange([0.0, 0.0, 0.0, 1.0]).mean() - 50
    with pytest.raises(ValueError, match="3 copy probabilities do not fit 4 output tokens"):
        orange([0.5, 0.5, 0.5])


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (6,)])
def test_weights_must_fit_the_labels(shape):
    with pytest.raises(ValueError, match="does not fit 2 output tokens and 3 source tokens"):
        attention_heatmap(np.zeros(shape), list("abc"), list("de"))


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="does not fit"):
        attention_heatmap(np.zeros((0, 3)), list("abc"), [])
