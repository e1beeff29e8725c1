"""Filters of the training examples, and the reasons for which they drop an example."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import DataConfig, Example, OnLong
from seq2seq.data.ragged import IntArray

Mask = npt.NDArray[np.bool_]

# Reasons, in the order in which they are checked: an example counts under the first that applies.
EMPTY = "empty on a side"
IDENTICAL = "with source equal to target"
DUPLICATE = "seen before"
RATIO = "beyond max_length_ratio"
LONG = "too long"
UNREADABLE = "unreadable"  # counted by the reader, before all others
REASONS = (EMPTY, IDENTICAL, DUPLICATE, RATIO, LONG)


def text_reason(example: Example, config: DataConfig) -> str | None:
    """Returns the reason to drop an example that can be seen before tokenization, or None to keep it.

    Args:
        example: the example.
        config: says which filters are enabled.
    """
    if not example.source.strip() or not example.target.strip():
        return EMPTY
    if config.drop_identical and example.source.strip() == example.target.strip():
        return IDENTICAL
    return None


class TrainingFilter:
    """Drops examples of a training set, by their texts and then by their lengths, as the configuration says.

    Attributes:
        dropped: number of dropped examples by reason, in the order of `REASONS`.
    """

    def __init__(self, config: DataConfig):
        self.dropped = Counter(dict.fromkeys(REASONS, 0))
        self._config = config
        self._seen = SeenPairs()

    def by_text(self, examples: Sequence[Example]) -> list[Example]:
        """Returns the next examples, in the order of the corpus, without those that their texts exclude."""
        reasons = [text_reason(example, self._config) for example in examples]
        self.dropped.update(filter(None, reasons))
        kept = [example for example, reason in zip(examples, reasons, strict=True) if reason is None]
        if not self._config.drop_duplicates:
            return kept
        first = list(compress(kept, self._seen.add(kept)))
        self.dropped[DUPLICATE] += len(kept) - len(first)
        return first

    def by_length(self, source: IntArray, target: IntArray) -> IntArray:
        """Returns the indices of the examples that their lengths do not exclude.

        Args:
            source: int64 [B] tokens per source, without EOS.
            target: int64 [B] tokens per target, without EOS.
        """
        config = self._config
        # A text may have no tokens because the tokenizer's normalization removes all of its characters.
        masks = {EMPTY: (source == 0) | (target == 0)}
        if config.max_length_ratio is not None:
            longer, shorter = np.maximum(source, target), np.minimum(source, target)
            masks[RATIO] = longer > config.max_length_ratio * shorter
        if config.on_long == OnLong.skip:
            masks[LONG] = (source + 1 > config.max_source_length) | (target + 1 > config.max_target_length)
        reasons = np.select(list(masks.values()), list(masks), default="")
        self.dropped.update(reasons[reasons != ""].tolist())
        return np.flatnonzero(reasons == "")


class SeenPairs:
    """The set of pairs seen so far, as 64-bit hashes: 8 bytes per pair.

    The probability of any collision among ten million different pairs is 3e-6. The hashes are stored in a few
    sorted arrays, each more than twice as long as the next.

    Attributes:
        arrays: sorted arrays of hashes.
    """

    def __init__(self) -> None:
        self.arrays: list[npt.NDArray[np.uint64]] = []

    def add(self, examples: Sequence[Example]) -> Mask:
        """Adds pairs; returns the mask [B] of those seen for the first time, within `examples` too."""
        hashes = np.fromiter(map(_hash, examples), dtype=np.uint64, count=len(examples))
        is_new = np.zeros(len(hashes), dtype=bool)
        distinct, first = np.unique(hashes, return_index=True)
        is_new[first] = True
        for array in self.arrays:
            is_new[first[isin_sorted(distinct, array)]] = False
        merged = np.sort(hashes[is_new])
        while self.arrays and len(self.arrays[-1]) <= 2 * len(merged):
            merged = np.sort(np.concatenate([self.arrays.pop(), merged]))
        self.arrays.append(merged)
        return is_new


def _hash(example: Example) -> int:
    source = example.source.encode("utf-8")
    digest = hashlib.blake2b(len(source).to_bytes(8, "little"), digest_size=8)  # marks where the source ends
    digest.update(source)
    digest.update(example.target.encode("utf-8"))
    return int.from_bytes(digest.digest(), "little")


def isin_sorted(values: npt.NDArray[Any], ordered: npt.NDArray[Any]) -> Mask:
    """Returns the mask [B] of the values that a sorted array contains."""
    return np.searchsorted(ordered, values, "left") < np.searchsorted(ordered, values, "right")
