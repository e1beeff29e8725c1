"""What is wrong with a corpus that no line shows by itself: repetition, leakage, sides swapped or shifted.

Counts of equal texts are of the whole corpus, at 24 bytes a pair; scripts and words are judged on a sample.
"""

import math
import random
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import Example
from seq2seq.data.ragged import Index
from seq2seq.preflight.language_id import SideCounts, WordsOfSides, script_of

Floats = npt.NDArray[np.float64]

SAMPLE = 5_000  # pairs whose words and scripts are judged
_SAMPLE_CHARS = 1_000  # of each text that are judged: enough to tell its language
_FIRST = 5  # places told of each diagnostic
_BLOCK = 500  # pairs whose lengths are correlated; the chance of 0.5 among unrelated texts is negligible
_LEAST = 100  # pairs below which a correlation says nothing
_OFFSETS = (-3, -2, -1, 1, 2, 3)
_SHIFTED, _GAIN = 0.5, 0.3  # correlation with an offset, and how far above that without, that mean a shift


@dataclass(frozen=True)
class Corpus:
    """What is kept of a corpus: 64-bit hashes and lengths of all texts, and a sample.

    Attributes:
        source: int64 [N] hashes of the sources, white space at the ends dropped; of this process only.
        target: int64 [N] of the targets.
        source_chars: int32 [N] lengths in characters.
        target_chars: int32 [N].
        sample: the first 1,000 characters of both texts of pairs drawn at random, in order.
        places: numbers of the sampled pairs, from 0.
    """

    source: Index
    target: Index
    source_chars: npt.NDArray[np.int32]
    target_chars: npt.NDArray[np.int32]
    sample: list[tuple[str, str]]
    places: list[int]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Which pairs [N] have text on both sides."""
        return (self.source_chars > 0) & (self.target_chars > 0)

    @property
    def pairs(self) -> Index:
        """int64 [N] hashes of the pairs."""
        with np.errstate(over="ignore"):
            return self.source * np.int64(0x1E3779B97F4A7C15) + self.target


def survey(examples: Iterable[Example], *, sample: int = SAMPLE) -> Corpus:
    """Reads a corpus once.

    The sample is drawn by reservoir sampling with jumps (Li, 1994, "Reservoir-sampling algorithms of time complexity
    O(n(1 + log(N/n)))", algorithm L), the same one each time.
    """
    columns = array("q"), array("q"), array("i"), array("i")
    chosen: dict[int, tuple[int, tuple[str, str]]] = {}  # slot to place and texts
    generator = random.Random(0)
    weight, following = 1.0, sample
    for number, example in enumerate(examples):
        source, target = example.source.strip(), example.target.strip()
        for column, value in zip(columns, (hash(source), hash(target), len(source), len(target)), strict=True):
            column.append(value)
        if number < sample or number == following:
            slot = number if number < sample else generator.randrange(sample)
            chosen[slot] = number, (source[:_SAMPLE_CHARS], target[:_SAMPLE_CHARS])
        if number == following or number == sample - 1:
            weight *= generator.random() ** (1 / sample)
            following = number + 1 + int(math.log(generator.random()) / math.log1p(-weight))
    ordered = sorted(chosen.values())
    sources, targets, source_chars, target_chars = (np.frombuffer(c, dtype=f"i{c.itemsize}") for c in columns)
    texts, places = [texts for _, texts in ordered], [place for place, _ in ordered]
    return Corpus(sources, targets, source_chars, target_chars, sample=texts, places=places)


@dataclass(frozen=True)
class Some:
    """Pairs of a kind.

    Attributes:
        count: how many.
        first: numbers of the first of them, from 1: in a text file the lines.
    """

    count: int = 0
    first: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Shift:
    """A stretch of pairs whose sides fit better when one is moved.

    Attributes:
        first: number of its first pair, from 1.
        last: number of its last pair.
        pairs: pairs in blocks that look shifted; the stretch may have others in between.
        offset: by how many lines the targets are late, as most blocks have it.
    """

    first: int
    last: int
    pairs: int
    offset: int


@dataclass(frozen=True)
class Quality:
    """One corpus.

    Attributes:
        pairs: all.
        filled: those with text on both sides; the figures that follow are of these.
        identical: source equal to target.
        repeated: pairs that came before, and so for `repeated_sources` and `repeated_targets`.
        leaked: pairs that the training corpus has too, and so for `leaked_sources`.
        outliers: pairs whose ratio of lengths is far from what is usual here.
        longest: number of the longest text, from 1, and its characters.
        correlation: of the logarithms of both lengths; None where there are too few pairs.
        shift: where the sides look shifted against each other.
        sampled: pairs that scripts and words are judged by.
        scripts: share of the sampled texts of each side that have letters, by script.
        side_counts: of the sampled pairs, judged by the words of the training corpus.
        swapped: numbers of the first swapped ones, from 1.
    """

    pairs: int
    filled: int
    identical: Some
    repeated: int
    repeated_sources: int
    repeated_targets: int
    leaked: Some
    leaked_sources: Some
    outliers: Some
    longest: tuple[int, int]
    correlation: float | None
    shift: Shift | None
    sampled: int
    scripts: dict[str, dict[str, float]]
    side_counts: SideCounts
    swapped: list[int]


def measure(corpora: dict[str, Corpus]) -> dict[str, Quality]:
    """The quality of each corpus; that of the name ``train`` is what the others are compared with."""
    train = corpora["train"]
    words = WordsOfSides(train.sample)
    known = np.sort(train.pairs[train.filled]), np.sort(train.source[train.filled])
    return {name: _measure(corpus, words, None if corpus is train else known) for name, corpus in corpora.items()}


def _measure(corpus: Corpus, words: WordsOfSides, known: tuple[Index, Index] | None) -> Quality:
    filled = corpus.filled
    side_counts = words.judge(corpus.sample, known=known is None, first=_FIRST)
    leaked, leaked_sources = Some(), Some()
    if known is not None:
        leaked = _some(filled & _held(known[0], corpus.pairs))
        leaked_sources = _some(filled & _held(known[1], corpus.source))
    lengths = np.maximum(corpus.source_chars, corpus.target_chars)
    longest = int(lengths.argmax()) if len(lengths) else 0
    return Quality(
        pairs=len(corpus),
        filled=int(filled.sum()),
        identical=_some(filled & (corpus.source == corpus.target)),
        repeated=_repeated(corpus.pairs[filled]),
        repeated_sources=_repeated(corpus.source[filled]),
        repeated_targets=_repeated(corpus.target[filled]),
        leaked=leaked,
        leaked_sources=leaked_sources,
        outliers=_outliers(corpus),
        longest=(longest + 1, int(lengths[longest]) if len(lengths) else 0),
        correlation=_correlation(corpus),
        shift=_shift(corpus),
        sampled=len(corpus.sample),
        scripts={
            "source": _shares(script_of(source) for source, _ in corpus.sample),
            "target": _shares(script_of(target) for _, target in corpus.sample),
        },
        side_counts=side_counts,
        swapped=[corpus.places[place] + 1 for place in side_counts.first_swapped],
    )


def _some(mask: npt.NDArray[np.bool_]) -> Some:
    places = np.flatnonzero(mask)
    return Some(len(places), (places[:_FIRST] + 1).tolist())


def _held(seen: Index, values: Index) -> npt.NDArray[np.bool_]:
    """Which of the values [N] a sorted array has."""
    if not len(seen):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(seen, values), len(seen) - 1)
    return np.asarray(seen[places] == values)


def _repeated(hashes: Index) -> int:
    return len(hashes) - len(np.unique(hashes))


def _shares(scripts: Iterable[str | None]) -> dict[str, float]:
    counts = Counter(script for script in scripts if script is not None)
    return {script: count / counts.total() for script, count in counts.most_common()}


def _outliers(corpus: Corpus) -> Some:
    """Pairs whose ratio of lengths is more than twelve median absolute deviations, and tenfold, off the median.

    Of a normal distribution that is eight standard deviations: what is out there is another kind of pair.
    """
    filled = corpus.filled
    if not filled.any():
        return Some()
    ratios = np.log((corpus.target_chars + 1.0) / (corpus.source_chars + 1.0))
    off = np.abs(ratios - np.median(ratios[filled]))
    return _some(filled & (off > max(12 * float(np.median(off[filled])), math.log(10))))


def _log_lengths(corpus: Corpus) -> tuple[Floats, Floats]:
    return np.log1p(corpus.source_chars.astype(np.float64)), np.log1p(corpus.target_chars.astype(np.float64))


def _correlation(corpus: Corpus) -> float | None:
    if len(corpus) < _LEAST:
        return None
    source, target = _log_lengths(corpus)
    return float(_correlations(source[None], target[None])[0])


def _shift(corpus: Corpus) -> Shift | None:
    """Looks for blocks of pairs in which lengths fit clearly better with one side moved by a few lines.

    The lengths of texts that translate or sum up each other are correlated (Gale and Church, 1993, section 3); those
    of their neighbours are not.
    """
    if len(corpus) < _LEAST:
        return None
    source, target = _log_lengths(corpus)
    size = min(_BLOCK, len(corpus))
    blocks = len(corpus) // size
    rows = source[: blocks * size].reshape(blocks, size)
    moved = np.stack(
        [
            _correlations(rows, np.roll(target, -offset)[: blocks * size].reshape(blocks, size))
            for offset in (0, *_OFFSETS)
        ]
    )
    best = moved[1:].max(axis=0)
    shifted = np.flatnonzero((best > _SHIFTED) & (best > moved[0] + _GAIN))
    if not len(shifted):
        return None
    offsets = Counter(moved[1:].argmax(axis=0)[shifted].tolist())
    last = len(corpus) if shifted[-1] == blocks - 1 else int(shifted[-1] + 1) * size
    return Shift(int(shifted[0]) * size + 1, last, len(shifted) * size, _OFFSETS[offsets.most_common(1)[0][0]])


def _correlations(left: Floats, right: Floats) -> Floats:
    """Pearson's correlation of each row [B, N] with that of the other; 0 where a row is constant."""
    constant = (np.ptp(left, axis=1) == 0) | (np.ptp(right, axis=1) == 0)
    left = left - left.mean(axis=1, keepdims=True)
    right = right - right.mean(axis=1, keepdims=True)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.asarray(np.where(constant, 0.0, (left * right).sum(axis=1) / np.where(constant, 1.0, scale)))
