"""What is left out of the training examples, and why."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import DataConfig, Example, OnLong
from seq2seq.data.ragged import Index

Mask = npt.NDArray[np.bool_]

# Reasons, in the order in which they are tried: an example is counted under the first that fits.
EMPTY = "empty on a side"
IDENTICAL = "with source equal to target"
DUPLICATE = "seen before"
RATIO = "beyond max_length_ratio"
LONG = "too long"
REASONS = (EMPTY, IDENTICAL, DUPLICATE, RATIO, LONG)


def text_reason(example: Example, config: DataConfig) -> str | None:
    """Why an example is left out judging by its text, or None if it stays.

    Args:
        example: the example.
        config: which filters are on.
    """
    if not example.source.strip() or not example.target.strip():
        return EMPTY
    if config.drop_identical and example.source.strip() == example.target.strip():
        return IDENTICAL
    return None


def length_reasons(source: Index, target: Index, config: DataConfig) -> dict[str, Mask]:
    """Which examples [B] are left out for their lengths, by reason; each under one reason at most.

    Args:
        source: int64 [B] tokens of the sources, without EOS.
        target: int64 [B] tokens of the targets, without EOS.
        config: which filters are on.
    """
    # White space of a kind that the tokenizer drops can leave a text without any token.
    found = {EMPTY: (source == 0) | (target == 0)}
    if config.max_length_ratio is not None:
        longer, shorter = np.maximum(source, target), np.minimum(source, target)
        found[RATIO] = longer > config.max_length_ratio * shorter
    if config.on_long == OnLong.skip:
        found[LONG] = (source + 1 > config.max_source_length) | (target + 1 > config.max_target_length)
    left = np.ones(len(source), dtype=bool)
    for reason, mask in found.items():
        found[reason] = mask & left
        left &= ~mask
    return found


class SeenPairs:
    """The pairs met so far, as 64-bit hashes: 8 bytes a pair, so that millions fit.

    Among ten million different pairs the chance that any two share a hash is 3e-6. The hashes lie in sorted
    runs, each more than twice as long as the next, so that there are only a few.

    Attributes:
        runs: the hashes.
    """

    def __init__(self) -> None:
        self.runs: list[npt.NDArray[np.uint64]] = []

    def add(self, examples: Sequence[Example]) -> Mask:
        """Adds pairs [B]; returns which of them were not there before, in `examples` itself neither."""
        hashes = np.fromiter(map(_hash, examples), dtype=np.uint64, count=len(examples))
        fresh = np.zeros(len(hashes), dtype=bool)
        distinct, first = np.unique(hashes, return_index=True)
        fresh[first] = True
        for run in self.runs:
            fresh[first[_held(run, distinct)]] = False
        merged = np.sort(hashes[fresh])
        while self.runs and len(self.runs[-1]) <= 2 * len(merged):
            merged = np.sort(np.concatenate([self.runs.pop(), merged]))
        self.runs.append(merged)
        return fresh


def _hash(example: Example) -> int:
    source = example.source.encode("utf-8")
    digest = hashlib.blake2b(len(source).to_bytes(8, "little"), digest_size=8)  # where the source ends
    digest.update(source)
    digest.update(example.target.encode("utf-8"))
    return int.from_bytes(digest.digest(), "little")


def _held(run: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]) -> Mask:
    """Which of the hashes [B] a sorted run holds."""
    if not len(run):
        return np.zeros(len(hashes), dtype=bool)
    places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
    return np.asarray(run[places] == hashes)
