"""Faults of a corpus that no single line shows: duplicates, leakage, swapped or shifted sides.

Equal texts are counted in the whole corpus, at 24 bytes per pair; scripts and words are judged on a sample.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import Example
from seq2seq.data.filters import isin_sorted
from seq2seq.data.ragged import IntArray
from seq2seq.preflight.language_id import SideClassifier, SideCounts, script_of
from seq2seq.tokenizers.training_sample import reservoir_sample

Floats = npt.NDArray[np.float64]

SAMPLE = 5_000  # pairs whose words and scripts are looked at
_SAMPLE_CHARS = 1_000  # of each sampled text: enough to tell its language
_MAX_LISTED = 5  # pairs that a diagnostic lists
_BLOCK = 500  # pairs per block; unrelated texts have a negligible chance of a correlation of 0.5 in so many
_MIN_PAIRS = 100  # with fewer, a correlation says nothing
_OFFSETS = (-3, -2, -1, 1, 2, 3)
_MIN_CORRELATION, _MIN_GAIN = 0.5, 0.3  # a shift: correlation with an offset, and its excess over that without


@dataclass(frozen=True)
class Corpus:
    """A corpus as 64-bit hashes and lengths of all texts, and a sample of the texts.

    Attributes:
        source: int64 [N] hashes of the sources, stripped of white space; valid in this process only.
        target: int64 [N] hashes of the targets.
        source_chars: int32 [N] lengths of the sources in characters.
        target_chars: int32 [N] of the targets.
        sample: the first 1,000 characters of both texts of pairs drawn at random, in corpus order.
        sample_indices: indices of the sampled pairs, from 0.
    """

    source: IntArray
    target: IntArray
    source_chars: npt.NDArray[np.int32]
    target_chars: npt.NDArray[np.int32]
    sample: list[tuple[str, str]]
    sample_indices: list[int]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Mask [N] of the pairs with text on both sides."""
        return (self.source_chars > 0) & (self.target_chars > 0)

    @property
    def pairs(self) -> IntArray:
        """Hashes of the pairs, int64 [N]."""
        with np.errstate(over="ignore"):
            return self.source * np.int64(0x1E3779B97F4A7C15) + self.target


def survey(examples: Iterable[Example], *, sample: int = SAMPLE) -> Corpus:
    """Reads a corpus once: hashes, lengths and a random sample, drawn with a fixed seed."""
    columns = array("q"), array("q"), array("i"), array("i")

    def read() -> Iterator[tuple[int, tuple[str, str]]]:
        for index, example in enumerate(examples):
            source, target = example.source.strip(), example.target.strip()
            for column, value in zip(columns, (hash(source), hash(target), len(source), len(target)), strict=True):
                column.append(value)
            yield index, (source[:_SAMPLE_CHARS], target[:_SAMPLE_CHARS])

    sampled = sorted(reservoir_sample(read(), size=sample, seed=0))
    sources, targets, source_chars, target_chars = (np.frombuffer(c, dtype=f"i{c.itemsize}") for c in columns)
    texts, indices = [texts for _, texts in sampled], [index for index, _ in sampled]
    return Corpus(sources, targets, source_chars, target_chars, sample=texts, sample_indices=indices)


@dataclass(frozen=True)
class PairMatches:
    """The pairs for which a condition holds.

    Attributes:
        count: how many there are.
        first: numbers of the first of them, from 1: line numbers in a text file.
    """

    count: int = 0
    first: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Shift:
    """A range of pairs whose lengths fit better when one side is moved by a few lines.

    Attributes:
        first: number of its first pair, from 1.
        last: number of its last pair.
        pairs: pairs in blocks that look shifted; the range may have other blocks in between.
        offset: by how many lines the targets come late, in most of these blocks.
    """

    first: int
    last: int
    pairs: int
    offset: int


@dataclass(frozen=True)
class Quality:
    """Quality statistics of one corpus.

    Attributes:
        pairs: number of all pairs.
        filled: number of pairs with text on both sides; `identical` to `outliers` count among these.
        identical: pairs whose source equals their target.
        repeated: number of pairs that occurred before; likewise `repeated_sources` and `repeated_targets`.
        leaked: pairs that the training corpus has too; likewise `leaked_sources`.
        outliers: pairs whose length ratio is far from the median.
        longest: number of the pair with the longest text, from 1, and the characters of that text.
        correlation: of the logarithms of both lengths; None with too few pairs.
        shift: where the sides look shifted against each other.
        sampled: number of pairs that scripts and words are judged by.
        scripts: for each side, the share of each script among the sampled texts that have letters.
        side_counts: of the sampled pairs, by the words of the training corpus.
        swapped: numbers of the first swapped pairs, from 1.
    """

    pairs: int
    filled: int
    identical: PairMatches
    repeated: int
    repeated_sources: int
    repeated_targets: int
    leaked: PairMatches
    leaked_sources: PairMatches
    outliers: PairMatches
    longest: tuple[int, int]
    correlation: float | None
    shift: Shift | None
    sampled: int
    scripts: dict[str, dict[str, float]]
    side_counts: SideCounts
    swapped: list[int]


def measure(corpora: dict[str, Corpus]) -> dict[str, Quality]:
    """Computes the quality of each corpus; the others are compared with the one named ``train``."""
    train = corpora["train"]
    classifier = SideClassifier(train.sample)
    known = np.sort(train.pairs[train.filled]), np.sort(train.source[train.filled])
    nothing = train.pairs[:0], train.source[:0]
    return {
        name: _measure(corpus, classifier, *(nothing if corpus is train else known), is_training=corpus is train)
        for name, corpus in corpora.items()
    }


def _measure(
    corpus: Corpus, classifier: SideClassifier, known_pairs: IntArray, known_sources: IntArray, *, is_training: bool
) -> Quality:
    """``known_pairs``, ``known_sources``: sorted hashes of what must not occur in the corpus."""
    filled = corpus.filled
    side_counts = classifier.classify(corpus.sample, leave_one_out=is_training, max_listed=_MAX_LISTED)
    lengths = np.maximum(corpus.source_chars, corpus.target_chars)
    longest = int(lengths.argmax())
    source_logs, target_logs = (np.log1p(n.astype(np.float64)) for n in (corpus.source_chars, corpus.target_chars))
    enough = len(corpus) >= _MIN_PAIRS
    return Quality(
        pairs=len(corpus),
        filled=int(filled.sum()),
        identical=_matches(filled & (corpus.source == corpus.target)),
        repeated=_repeated(corpus.pairs[filled]),
        repeated_sources=_repeated(corpus.source[filled]),
        repeated_targets=_repeated(corpus.target[filled]),
        leaked=_matches(filled & isin_sorted(corpus.pairs, known_pairs)),
        leaked_sources=_matches(filled & isin_sorted(corpus.source, known_sources)),
        outliers=_outliers(corpus),
        longest=(longest + 1, int(lengths[longest])),
        correlation=float(_correlations(source_logs[None], target_logs[None])[0]) if enough else None,
        shift=_shift(source_logs, target_logs) if enough else None,
        sampled=len(corpus.sample),
        scripts={
            "source": _shares(script_of(source) for source, _ in corpus.sample),
            "target": _shares(script_of(target) for _, target in corpus.sample),
        },
        side_counts=side_counts,
        swapped=[corpus.sample_indices[index] + 1 for index in side_counts.first_swapped],
    )


def _matches(mask: npt.NDArray[np.bool_]) -> PairMatches:
    indices = np.flatnonzero(mask)
    return PairMatches(len(indices), (indices[:_MAX_LISTED] + 1).tolist())


def _repeated(hashes: IntArray) -> int:
    return len(hashes) - len(np.unique(hashes))


def _shares(scripts: Iterable[str | None]) -> dict[str, float]:
    counts = Counter(script for script in scripts if script is not None)
    return {script: count / counts.total() for script, count in counts.most_common()}


def _outliers(corpus: Corpus) -> PairMatches:
    """Returns the pairs whose length ratio is more than twelve median absolute deviations, and tenfold, off the median.

    In a normal distribution these are eight standard deviations: such a pair is of another kind.
    """
    filled = corpus.filled
    if not filled.any():
        return PairMatches()
    ratios = np.log((corpus.target_chars + 1.0) / (corpus.source_chars + 1.0))
    off = np.abs(ratios - np.median(ratios[filled]))
    return _matches(filled & (off > max(12 * float(np.median(off[filled])), math.log(10))))


def _shift(source: Floats, target: Floats) -> Shift | None:
    """Looks for blocks of pairs whose log lengths [N] fit clearly better with one side moved by a few lines.

    The lengths of a text and of its translation or summary are correlated (Gale and Church, 1993, section 3); those
    of neighbouring pairs are not.
    """
    size = min(_BLOCK, len(source))
    blocks = len(source) // size
    rows = source[: blocks * size].reshape(blocks, size)
    correlations = np.stack(
        [
            _correlations(rows, np.roll(target, -offset)[: blocks * size].reshape(blocks, size))
            for offset in (0, *_OFFSETS)
        ]
    )
    best = correlations[1:].max(axis=0)
    shifted = np.flatnonzero((best > _MIN_CORRELATION) & (best > correlations[0] + _MIN_GAIN))
    if not len(shifted):
        return None
    offsets = Counter(correlations[1:].argmax(axis=0)[shifted].tolist())
    last = len(source) if shifted[-1] == blocks - 1 else int(shifted[-1] + 1) * size
    return Shift(int(shifted[0]) * size + 1, last, len(shifted) * size, _OFFSETS[offsets.most_common(1)[0][0]])


def _correlations(left: Floats, right: Floats) -> Floats:
    """Computes Pearson's correlation of the rows [B, N] of two arrays, [B]; 0 where a row is constant."""
    constant = (np.ptp(left, axis=1) == 0) | (np.ptp(right, axis=1) == 0)
    left = left - left.mean(axis=1, keepdims=True)
    right = right - right.mean(axis=1, keepdims=True)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.asarray(np.where(constant, 0.0, (left * right).sum(axis=1) / np.where(constant, 1.0, scale)))
