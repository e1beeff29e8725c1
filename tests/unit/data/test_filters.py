import random

import numpy as np
import pytest

from seq2seq.data.corpus import DataConfig, Example, OnLong
from seq2seq.data.filters import EMPTY, IDENTICAL, LONG, RATIO, SeenPairs, length_reasons, text_reason


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


def test_lengths_count_the_end_of_sentence() -> None:
    config = DataConfig(max_source_length=5, max_target_length=3)
    source, target = np.array([4, 5, 4, 0]), np.array([2, 2, 3, 1])
    found = length_reasons(source, target, config)
    assert found.tolist() == ["", LONG, LONG, EMPTY]
    config = DataConfig(max_source_length=5, max_target_length=3, on_long=OnLong.truncate)
    assert length_reasons(source, target, config).tolist() == ["", "", "", EMPTY]


def test_ratio_comes_first_and_each_example_counts_once() -> None:
    config = DataConfig(max_source_length=5, max_length_ratio=2.0)
    source, target = np.array([4, 9, 2, 0]), np.array([2, 2, 5, 9])
    assert length_reasons(source, target, config).tolist() == ["", RATIO, RATIO, EMPTY]


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
