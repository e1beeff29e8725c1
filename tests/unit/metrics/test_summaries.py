import numpy as np
import pytest

from seq2seq.metrics.bootstrap import corpus_scores
from seq2seq.metrics.summaries import copied_fragments, summary_statistics

SOURCE = "The cat sat on the mat. A dog came in and the cat ran."


def describe(hyps, sources, refs):
    statistics = summary_statistics(hyps, sources, refs)
    assert {each.rows.dtype for each in statistics.values()} == {np.dtype(np.float64)}
    scores = corpus_scores(statistics, resamples=0, seed=0)
    return {name: value.score for name, value in scores.items()}


def test_one_summary_by_hand():
    # the cat ran | on the mat | quickly: fragments of 3 and 3 of 7 words.
    found = describe(["The cat ran on the mat, quickly!"], [SOURCE], [["A cat ran off then"]])
    assert found == pytest.approx(
        {
            "length_ratio": 100 * 7 / 5,
            "novel_1grams": 100 * 1 / 7,
            "novel_2grams": 100 * 2 / 6,  # ran on, mat quickly
            "novel_3grams": 100 * 3 / 5,  # cat ran on, ran on the, the mat quickly
            "novel_4grams": 100 * 4 / 4,
            "copied_share": 100 * 6 / 7,
            "copied_length": (9 + 9) / 7,
            "repetition_share": 0.0,
        }
    )


def test_repeated_bigrams():
    found = describe(["new deal new deal new deal"], ["other words"], [["x"]])
    assert found["repetition_share"] == pytest.approx(100 * 3 / 5)  # new deal, deal new, [new deal, deal new, new deal]
    assert found["novel_2grams"] == 100.0
    assert found["copied_share"] == found["copied_length"] == 0.0


def test_corpus_is_the_sum_of_parts_over_the_sum_of_wholes():
    hyps = ["a b c d", "x"]
    found = describe(hyps, ["a b c d", "y"], [["a b", "a b c d"], ["p q"]])
    assert found["novel_1grams"] == pytest.approx(100 * 1 / 5)
    assert found["copied_share"] == pytest.approx(100 * 4 / 5)
    assert found["copied_length"] == pytest.approx(16 / 5)
    assert found["length_ratio"] == pytest.approx(100 * (4 + 1) / (3 + 2))
    assert found["novel_4grams"] == 0.0  # of the one 4-gram there is


def test_empty_texts_count_for_nothing():
    with_empty = describe(["a b", ""], ["a c", "d"], [["a"], ["e"]])
    assert with_empty | {"length_ratio": 0} == describe(["a b"], ["a c"], [["a"]]) | {"length_ratio": 0}
    assert set(describe([""], [""], [[""]]).values()) == {0.0}


def test_order_length_and_script():
    chinese = describe(["我们去公园"], ["今天我们去公园玩"], [["我们玩"]])
    assert chinese["copied_share"] == 100.0
    assert chinese["copied_length"] == 5.0
    assert chinese["length_ratio"] == pytest.approx(100 * 5 / 3)


def longest_shared(summary, source, start):
    return max(
        (length for length in range(len(summary) - start + 1) if shared(summary[start : start + length], source)),
        default=0,
    )


def shared(words, source):
    return any(source[at : at + len(words)] == words for at in range(len(source) - len(words) + 1))


def test_fragments_against_a_search_of_every_length():
    rng = np.random.default_rng(8)
    for _ in range(200):
        source = list(rng.choice(list("abcd"), size=rng.integers(0, 15)))
        summary = list(rng.choice(list("abcde"), size=rng.integers(0, 10)))
        expected, start = [], 0
        while start < len(summary):
            length = longest_shared(summary, source, start)
            expected += [length] if length else []
            start += max(length, 1)
        assert copied_fragments(summary, source) == expected


def test_signatures_say_what_is_counted():
    found = summary_statistics(["a"], ["a"], [["a"]])
    assert str(found["novel_2grams"].signature).startswith(
        "nrefs:1|type:novel_2grams|measure:%|of:sums|tok:unicode|case:lc"
    )
    assert "measure:words" in str(found["copied_length"].signature)
