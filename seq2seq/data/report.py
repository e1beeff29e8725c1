"""The data report: what was read, dropped and kept of each split, and how its text suits the tokenizer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from seq2seq.data.filters import LONG
from seq2seq.data.ragged import Sequences
from seq2seq.tokenizers.base import UNK_ID, Tokenizer

_META_SPACE = "\u2581"  # SentencePiece's mark of a space; in a text it becomes one
_MANY = 0.1  # share of the training examples from which on cutting or leaving out is worth a warning
_QUANTILES = {"median": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}


@dataclass
class SideReport:
    """One side of a split; tokens and lengths are those of all encoded examples, before any is cut.

    Attributes:
        limit: most tokens that are kept of an example, end of sentence counted.
        blank: texts with nothing but white space.
        truncated: kept examples that were cut.
        kept_tokens: tokens of the kept examples, without end of sentence and before any was cut.
        cut_tokens: those of them that were cut off.
        tokens: number of tokens, without end of sentence.
        unknown: unknown tokens among them.
        byte_pieces: byte pieces among them, which stand for characters that the vocabulary lacks.
        meta_spaces: texts with the character U+2581, which SentencePiece reads as a space.
        lengths: median, p95, p99, longest: tokens of an example, end of sentence counted.
    """

    limit: int = 0
    blank: int = 0
    truncated: int = 0
    kept_tokens: int = 0
    cut_tokens: int = 0
    tokens: int = 0
    unknown: int = 0
    byte_pieces: int = 0
    meta_spaces: int = 0
    lengths: dict[str, int] = field(default_factory=dict)


@dataclass
class SplitReport:
    """One split.

    Attributes:
        read: examples in the corpus.
        kept: examples in the store.
        dropped: left out, by reason.
        source: the sources.
        target: the targets.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    source: SideReport = field(default_factory=SideReport)
    target: SideReport = field(default_factory=SideReport)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SplitReport":
        """The inverse of `dataclasses.asdict`."""
        sides = {name: SideReport(**values[name]) for name in ("source", "target")}
        return cls(**{**values, **sides})

    def kept_of(self, what: str) -> str:
        """How many were kept and why others were not, such as ``90 of 100 pairs (dropped: 10 too long)``."""
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
        return f"{self.kept:,} of {self.read:,} {what}" + (f" (dropped: {dropped})" if dropped else "")

    def lines(self, name: str) -> list[str]:
        """A few lines to read."""
        return [
            f"{name}: {self.kept_of('examples')}",
            *(_side_line(word, getattr(self, word), self.kept) for word in ("source", "target")),
        ]

    def warnings(self) -> list[str]:
        """What a user should know of a training set: that much of it is cut or left out for its length."""
        found = [
            _cut_warning(name, side, self.kept)
            for name, side in (("source", self.source), ("target", self.target))
            if side.truncated > _MANY * self.kept
        ]
        long = self.dropped.get(LONG, 0)
        if long > _MANY * self.read:
            found.append(
                f"warning: {long:,} of {self.read:,} training examples ({long / self.read:.1%}) are left out: longer "
                f"than data.max_source_length={self.source.limit} or data.max_target_length={self.target.limit} "
                "tokens; raise these, or have the examples cut and kept with data.on_long=truncate"
            )
        return found


@dataclass
class DataReport:
    """All splits by name: ``train``, ``valid``, and ``test.<name>`` each."""

    splits: dict[str, SplitReport] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Three lines a split, then the warnings about the training set."""
        lines = [line for name, split in self.splits.items() for line in split.lines(name)]
        return lines + (self.splits["train"].warnings() if "train" in self.splits else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, by split."""
        return {name: asdict(split) for name, split in self.splits.items()}


def _cut_warning(name: str, side: SideReport, kept: int) -> str:
    return (
        f"warning: {side.truncated:,} of {kept:,} training {name}s ({side.truncated / kept:.1%}) are longer than "
        f"data.max_{name}_length={side.limit} tokens and are cut, which takes away "
        f"{side.cut_tokens / side.kept_tokens:.1%} of all {name} tokens; with data.max_{name}_length="
        f"{side.lengths['p95']}, 95% would stay whole"
    )


def _side_line(name: str, side: SideReport, kept: int) -> str:
    lengths = ", ".join(f"{key} {value:,}" for key, value in side.lengths.items())
    parts = [f"  {name}: {side.tokens:,} tokens", f"length {lengths}" if lengths else ""]
    rates = (("unknown", side.unknown), ("byte pieces", side.byte_pieces))
    parts += [f"{count / max(side.tokens, 1):.3%} {what}" for what, count in rates]
    if side.truncated:
        shares = f"{side.truncated / kept:.1%} of examples, {side.cut_tokens / side.kept_tokens:.1%} of tokens cut"
        parts.append(f"{side.truncated:,} truncated to {side.limit} ({shares})")
    counts = (("blank", side.blank), ("with U+2581", side.meta_spaces))
    parts += [f"{count:,} {what}" for what, count in counts if count]
    return "; ".join(part for part in parts if part)


class SideCounter:
    """Collects the `SideReport` of one side, chunk by chunk, in memory that does not grow with the corpus.

    Args:
        tokenizer: of that side.
        limit: see `SideReport`.
    """

    def __init__(self, tokenizer: Tokenizer, *, limit: int):
        self._report = SideReport(limit=limit)
        self._lengths: Counter[int] = Counter()
        self._is_byte = np.array([tokenizer.is_byte(i) for i in range(tokenizer.vocab_size)], dtype=bool)

    def add_texts(self, texts: Sequence[str]) -> None:
        """Counts in what shows in the text."""
        self._report.blank += sum(not text.strip() for text in texts)
        self._report.meta_spaces += sum(_META_SPACE in text for text in texts)

    def add_ids(self, encoded: Sequences) -> None:
        """Counts in encoded texts, without end of sentence."""
        ids = encoded.values
        self._report.tokens += len(ids)
        self._report.unknown += int(np.count_nonzero(ids == UNK_ID))
        self._report.byte_pieces += int(np.count_nonzero(self._is_byte[ids]))
        lengths, counts = np.unique(encoded.lengths + 1, return_counts=True)
        self._lengths.update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))

    def add_kept(self, encoded: Sequences) -> None:
        """Counts in the kept ones of the encoded texts, before they are cut, without end of sentence."""
        cut = np.maximum(encoded.lengths + 1 - self._report.limit, 0)
        self._report.kept_tokens += len(encoded.values)
        self._report.truncated += int(np.count_nonzero(cut))
        self._report.cut_tokens += int(cut.sum())

    def result(self) -> SideReport:
        """The report of all that was counted in."""
        self._report.lengths = _quantiles(self._lengths)
        return self._report


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Nearest-rank quantiles of counted lengths."""
    if not lengths:
        return {}
    values = np.array(sorted(lengths))
    cumulated = np.cumsum([lengths[value] for value in values.tolist()])
    ranks = {name: np.ceil(share * cumulated[-1]) for name, share in _QUANTILES.items()}
    return {name: int(values[np.searchsorted(cumulated, rank)]) for name, rank in ranks.items()}
