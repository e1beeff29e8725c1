import random
from collections.abc import Iterable

import numpy as np
import pytest

from seq2seq.data.corpus import Example
from seq2seq.preflight.corpus_quality import Quality, measure, survey


def examples(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    return [Example(source, target, (target,)) for source, target in pairs]


def quality(train: list[tuple[str, str]], **others: list[tuple[str, str]]) -> dict[str, Quality]:
    corpora = {"train": train, **others}
    return measure({name: survey(examples(pairs)) for name, pairs in corpora.items()})


def numbered(count: int) -> list[tuple[str, str]]:
    return [(f"source {i}", f"target {i}") for i in range(count)]


def test_counts_of_equal_texts_are_those_of_sets() -> None:
    generator = random.Random(5)
    pairs = [(str(generator.randrange(40)), str(generator.randrange(40))) for _ in range(700)]
    found = quality(pairs)["train"]
    assert found.repeated == 700 - len(set(pairs))
    assert found.repeated_sources == 700 - len({source for source, _ in pairs})
    assert found.repeated_targets == 700 - len({target for _, target in pairs})
    same = [i + 1 for i, (source, target) in enumerate(pairs) if source == target]
    assert (found.identical.count, found.identical.first) == (len(same), same[:5])


def test_white_space_at_the_ends_does_not_hide_equality_and_blank_texts_are_not_compared() -> None:
    found = quality([("a ", "b"), ("a", " b"), ("", ""), (" ", "")], test=[(" a", "b\t"), ("", "")])
    assert (found["train"].pairs, found["train"].filled, found["train"].repeated) == (4, 2, 1)
    assert found["train"].identical.count == 0
    assert (found["test"].leaked.count, found["test"].leaked.first) == (1, [1])
    assert quality([("", "")], test=[("a", "b")])["test"].leaked.count == 0


def test_leakage_is_reported_with_its_line_numbers() -> None:
    train = numbered(500)
    test = [("new", "x"), train[7], (train[9][0], "another"), ("new too", "y"), train[400]]
    found = quality(train, test=test)["test"]
    assert (found.leaked.count, found.leaked.first) == (2, [2, 5])
    assert (found.leaked_sources.count, found.leaked_sources.first) == (3, [2, 3, 5])


def test_the_correlation_is_that_of_the_log_lengths() -> None:
    generator = random.Random(1)
    pairs = [("s" * generator.randint(1, 50), "t" * generator.randint(1, 50)) for _ in range(300)]
    expected = np.corrcoef(np.log1p([len(s) for s, _ in pairs]), np.log1p([len(t) for _, t in pairs]))[0, 1]
    assert quality(pairs)["train"].correlation == pytest.approx(expected)
    assert quality(pairs[:99])["train"].correlation is None


@pytest.mark.parametrize("offset", [-2, -1, 1, 3])
def test_a_shift_is_found_with_its_place_and_its_size(offset: int) -> None:
    generator = random.Random(2)
    lengths = [generator.randint(5, 100) for _ in range(3000)]
    targets = lengths[:1500] + [lengths[i - offset] for i in range(1500, 3000 + min(offset, 0))]
    shift = quality([("s" * a, "t" * b) for a, b in zip(lengths, targets, strict=False)])["train"].shift
    assert shift is not None
    assert shift.offset == offset
    assert (shift.first, shift.last) == (1501, len(targets))  # a block of pairs begins where the shift does


def test_a_shift_ends_where_the_texts_are_aligned_again() -> None:
    generator = random.Random(3)
    lengths = [generator.randint(5, 100) for _ in range(3200)]
    targets = lengths[:1000] + lengths[998:1998] + lengths[2000:]
    shift = quality([("s" * a, "t" * b) for a, b in zip(lengths, targets, strict=True)])["train"].shift
    assert shift is not None
    assert (shift.first, shift.last, shift.offset) == (1001, 2000, 2)


def test_texts_sorted_by_length_or_all_of_one_length_do_not_look_shifted() -> None:
    rising = [("s" * (i // 9), "t" * (i // 9 + i % 3)) for i in range(2000)]
    assert quality(rising)["train"].shift is None
    constant = quality([("abc", "de")] * 1000)["train"]
    assert constant.shift is None
    assert constant.correlation == 0
    lengths = [1 + i % 7 for i in range(1000)]
    assert quality([("abc", "t" * length) for length in lengths])["train"].correlation == 0
    assert quality([("s" * length, "de") for length in lengths])["train"].correlation == 0


def test_outliers_are_pairs_of_another_kind() -> None:
    generator = random.Random(3)
    pairs = [("s" * n, "t" * (n + generator.randint(0, 9))) for n in (generator.randint(20, 60) for _ in range(400))]
    pairs[123] = ("s" * 30, "t" * 3000)
    found = quality(pairs)["train"]
    assert (found.outliers.count, found.outliers.first) == (1, [124])
    assert found.longest == (124, 3000)


def test_the_sample_is_even_in_order_and_the_same_each_time() -> None:
    corpus = survey(examples(numbered(20_000)), sample=2000)
    assert len(set(corpus.sample_indices)) == 2000
    assert corpus.sample_indices == sorted(corpus.sample_indices)
    assert all(
        texts == (f"source {i}", f"target {i}") for i, texts in zip(corpus.sample_indices, corpus.sample, strict=True)
    )
    tenths = np.histogram(corpus.sample_indices, bins=10, range=(0, 20_000))[0]
    assert np.all(np.abs(tenths - 200) < 60)  # four standard deviations of a binomial count
    assert survey(examples(numbered(20_000)), sample=2000).sample_indices == corpus.sample_indices
