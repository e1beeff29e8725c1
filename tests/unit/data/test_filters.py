import random

import numpy as np
import pytest

from seq2seq.data.corpus import DataConfig, Example, OnLong
from seq2seq.data.filters import EMPTY, IDENTICAL, LONG, RATIO, SeenPairs, TrainingFilter, text_reason
from seq2seq.data.ragged import IntArray


def pair(source: str, target: str) -> Example:
    return Example(source, target, (target,))


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [("a", "b", None), ("", "b", EMPTY), ("a", " \t\u3000", EMPTY), ("a", "a", None)],
)
def test_blank_sides_are_dropped_by_default(source: str, target: str, reason: str | None) -> None:
    assert text_reason(pair(source, target), DataConfig()) == reason


def test_identical_is_a_choice() -> None:
    assert text_reason(pair("a", "a "), DataConfig(drop_identical=True)) == IDENTICAL
    assert text_reason(pair("a", "A"), DataConfig(drop_identical=True)) is None


def by_length(source: IntArray, target: IntArray, config: DataConfig) -> tuple[list[int], dict[str, int]]:
    """Which examples are kept, and how many are dropped for which reason."""
    training_filter = TrainingFilter(config)
    return training_filter.by_length(source, target).tolist(), +training_filter.dropped


def test_lengths_count_the_end_of_sentence() -> None:
    config = DataConfig(max_source_length=5, max_target_length=3)
    source, target = np.array([4, 5, 4, 0]), np.array([2, 2, 3, 1])
    assert by_length(source, target, config) == ([0], {LONG: 2, EMPTY: 1})
    config = DataConfig(max_source_length=5, max_target_length=3, on_long=OnLong.truncate)
    assert by_length(source, target, config) == ([0, 1, 2], {EMPTY: 1})


def test_ratio_comes_first_and_each_example_counts_once() -> None:
    config = DataConfig(max_source_length=5, max_length_ratio=2.0)
    source, target = np.array([4, 9, 2, 0]), np.array([2, 2, 5, 9])
    assert by_length(source, target, config) == ([0], {RATIO: 2, EMPTY: 1})


def test_duplicates_agree_with_a_set() -> None:
    rng = random.Random(0)
    chunks = [
        [pair(str(rng.randrange(40)), str(rng.randrange(40))) for _ in range(rng.randrange(300))] for _ in range(30)
    ]
    seen, known = SeenPairs(), set()
    for chunk in [[], *chunks]:
        expected = []
        for example in chunk:
            expected.append((example.source, example.target) not in known)
            known.add((example.source, example.target))
        assert seen.add(chunk).tolist() == expected
    assert sum(map(len, seen.arrays)) == len(known)
    assert len(seen.arrays) < 8


def test_the_border_between_source_and_target_matters() -> None:
    assert SeenPairs().add([pair("ab", "c"), pair("a", "bc"), pair("ab", "c")]).tolist() == [
        True,
        True,
        False,
    ]
