import json

import pytest

from seq2seq.errors import UserError
from seq2seq.metrics import MetricsConfig
from seq2seq.metrics.significance import ResamplingConfig
from seq2seq.runs.comparison import System, TestSet, compare, markdown

REFERENCES = [
    ["the cat sat on the mat"],
    ["a dog barks loudly at night"],
    ["it rains today in the town"],
    ["yes it is"],
]
SOURCES = ["die katze", "ein hund", "es regnet", "ja"]
FIRST = ["the cat sat on the mat", "a dog", "it rains today in a town", "yes it is"]
SECOND = ["a cat", "a dog barks loudly at night", "it rains today in the town", "yes it is"]


def comparison(*names, first=FIRST, others=(SECOND,), sources=SOURCES, examples=5):
    systems = [System(f"s{i}", outputs, f"file {i}") for i, outputs in enumerate([first, *others])]
    return compare(
        TestSet("news", REFERENCES, sources, "ref=news"),
        systems,
        MetricsConfig(names=list(names) or ["rouge1", "ter"]),
        target_language="en",
        resampling=ResamplingConfig(50, 60, 1),
        examples=examples,
    )


def test_examples_are_ordered_by_how_far_the_systems_are_apart():
    contrasts = comparison("rouge1").contrasts["s1"]
    assert [contrast.number for contrast in contrasts.better] == [2, 3]
    assert [contrast.number for contrast in contrasts.worse] == [1]
    widest = contrasts.better[0]
    assert widest.scores == (pytest.approx(50), pytest.approx(100))
    assert (widest.source, widest.references, widest.outputs) == (
        SOURCES[1], ("a dog barks loudly at night",), (FIRST[1], SECOND[1])
    )  # fmt: skip
    assert [len(side) for side in vars(comparison("rouge1", examples=1).contrasts["s1"]).values()] == [1, 1]


def test_fewer_edits_are_better():
    contrasts = comparison("ter").contrasts["s1"]
    assert [contrast.number for contrast in contrasts.better] == [2, 3]
    assert contrasts.better[0].scores[0] > contrasts.better[0].scores[1]


def test_markdown_has_every_figure_and_the_texts():
    result = comparison(others=[SECOND, FIRST])
    text = markdown(result)
    lines = text.splitlines()
    assert lines[0] == "## news: 4 examples"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert [row[:2] for row in rows[2:]] == [[m, s] for m in ("rouge1", "ter") for s in ("s0", "s1", "s2")]
    rouge = result.scores["rouge1"][1]
    assert rows[3] == [
        "rouge1", "s1", f"{rouge.score:.2f}", f"{rouge.low:.2f} to {rouge.high:.2f}", f"{rouge.difference.value:+.2f}",
        f"{rouge.difference.low:+.2f} to {rouge.difference.high:+.2f}", f"{rouge.difference.p_bootstrap:.4f}",
        f"{rouge.difference.p_randomization:.4f}",
    ]  # fmt: skip
    assert rows[4][4:] == ["+0.00", "+0.00 to +0.00", "1.0000", "1.0000"]
    assert "Lower is better in ter." in text
    assert "bs:50|ar:60|seed:1|" in text
    assert (
        "source     ein hund\nreference  a dog barks loudly at night\ns0         a dog\ns1         a dog barks" in text
    )
    assert "furthest ahead of s2" not in text  # equal systems differ in no example


def test_texts_cannot_break_out_of_their_block():
    nasty = "one\n```\n# heading | <b>"
    text = markdown(comparison("rouge1", others=[[nasty, *SECOND[1:]]], sources=None))
    fences = [line for line in text.splitlines() if line.startswith("```")]
    assert fences == ["```text", "```"] * 3
    assert "source" not in text
    assert "x" * 499 + "…" in markdown(comparison("rouge1", others=[["x" * 501, *SECOND[1:]]]))


def test_json_holds_the_same_figures():
    result = comparison(others=[SECOND, FIRST])
    tree = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (tree["examples"], tree["baseline"]) == (4, "s0")
    assert (tree["resamples"], tree["trials"], tree["seed"]) == (50, 60, 1)
    ter = tree["metrics"]["ter"]
    assert ter["lower_is_better"] is True
    assert "difference" not in ter["systems"]["s0"]
    assert ter["systems"]["s1"]["difference"]["p_bootstrap"] == result.scores["ter"][1].difference.p_bootstrap
    assert tree["contrasts"]["metric"] == "rouge1"
    assert tree["contrasts"]["systems"]["s1"]["better"][0]["outputs"] == [FIRST[1], SECOND[1]]


def test_scores_are_those_of_metrics():
    from seq2seq.metrics import score

    config = MetricsConfig(names=["bleu", "chrf", "rougeL"])
    expected = score(SECOND, REFERENCES, config, target_language="en", seed=1, bootstrap=50)
    for name, tested in comparison("bleu", "chrf", "rougeL").scores.items():
        one = expected[name]
        assert (tested[1].score, tested[1].low, tested[1].high) == pytest.approx((one.score, one.low, one.high))


def test_another_number_of_outputs_is_refused():
    with pytest.raises(UserError, match="file 1 has 3 outputs, ref=news has 4 references"):
        comparison(others=[SECOND[:3]])
