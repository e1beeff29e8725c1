"""The data report of a run: what was read, dropped and kept per split, and token statistics of each side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seq2seq.data.filters import LONG
from seq2seq.data.ragged import IntArray, RaggedArray
from seq2seq.tokenizers.base import UNK_ID, Tokenizer

_META_SPACE = "\u2581"  # SentencePiece's symbol for a space; it decodes to a space
_WARN_SHARE = 0.1  # warn if more than this share of the training examples is cut or dropped
_QUANTILES = {"median": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}


@dataclass
class SideReport:
    """Statistics of one side of a split; tokens and lengths are of all encoded examples, before truncation.

    Attributes:
        limit: maximum tokens per example, EOS included.
        blank: number of texts that are empty or white space.
        truncated: number of kept examples that were cut.
        kept_tokens: tokens of the kept examples, without EOS, before truncation.
        cut_tokens: number of those tokens that were cut off.
        tokens: number of tokens, without EOS.
        unknown: number of those that are unknown tokens.
        byte_pieces: number of those that are byte pieces, which encode characters missing from the vocabulary.
        meta_spaces: number of texts that contain U+2581, which SentencePiece reads as a space.
        lengths: tokens per example, EOS included: median, p95, p99, longest.
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
    """Statistics of one split.

    Attributes:
        read: number of examples in the corpus.
        kept: number of examples in the store.
        dropped: number of dropped examples by reason.
        source: statistics of the sources.
        target: statistics of the targets.
        unreadable: up to ten of the records that could not be read: file, line, and what is wrong.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    source: SideReport = field(default_factory=SideReport)
    target: SideReport = field(default_factory=SideReport)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SplitReport":
        """Inverse of `dataclasses.asdict`."""
        sides = {name: SideReport(**values[name]) for name in ("source", "target")}
        return cls(**{**values, **sides})

    def describe_kept(self, noun: str) -> str:
        """Describes what was kept and dropped, such as ``90 of 100 pairs (dropped: 10 too long)``."""
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
        return f"{self.kept:,} of {self.read:,} {noun}" + (f" (dropped: {dropped})" if dropped else "")

    def lines(self, name: str) -> list[str]:
        """Formats the report: a line for the split, one per side, and one per unreadable record that it names."""
        return [
            f"{name}: {self.describe_kept('examples')}",
            *(_side_line(side, getattr(self, side), self.kept) for side in ("source", "target")),
            *(f"  unreadable: {message}" for message in self.unreadable),
        ]

    def warnings(self) -> list[str]:
        """Warns if many training examples are cut or dropped for their length."""
        messages = [
            _cut_warning(name, side, self.kept)
            for name, side in (("source", self.source), ("target", self.target))
            if side.truncated > _WARN_SHARE * self.kept
        ]
        long = self.dropped.get(LONG, 0)
        if long > _WARN_SHARE * self.read:
            messages.append(
                f"warning: {long:,} of {self.read:,} training examples ({long / self.read:.1%}) are dropped as longer "
                f"than data.max_source_length={self.source.limit} or data.max_target_length={self.target.limit} "
                "tokens; raise these limits, or set data.on_long=truncate to cut the examples instead"
            )
        return messages


def report_lines(splits: Mapping[str, SplitReport]) -> list[str]:
    """Formats three lines per split, then the warnings about the training set.

    Args:
        splits: Reports by name: ``train``, ``valid`` and each ``test.<name>``.
    """
    lines = [line for name, split in splits.items() for line in split.lines(name)]
    return lines + (splits["train"].warnings() if "train" in splits else [])


def _cut_warning(name: str, side: SideReport, kept: int) -> str:
    return (
        f"warning: {side.truncated:,} of {kept:,} training {name}s ({side.truncated / kept:.1%}) are longer than "
        f"data.max_{name}_length={side.limit} tokens and are cut, which removes "
        f"{side.cut_tokens / side.kept_tokens:.1%} of all {name} tokens; with data.max_{name}_length="
        f"{side.lengths['p95']}, 95% would not be cut"
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
    """Accumulates the `SideReport` of one side, chunk by chunk; memory does not grow with the corpus.

    Args:
        tokenizer: tokenizer of that side.
        limit: see `SideReport`.
    """

    def __init__(self, tokenizer: Tokenizer, *, limit: int):
        self._report = SideReport(limit=limit)
        self._lengths: Counter[int] = Counter()
        self._is_byte = np.array([tokenizer.is_byte(i) for i in range(tokenizer.vocab_size)], dtype=bool)

    def add_texts(self, texts: Sequence[str]) -> None:
        """Adds the texts to the counts of blank texts and meta spaces."""
        self._report.blank += sum(not text.strip() for text in texts)
        self._report.meta_spaces += sum(_META_SPACE in text for text in texts)

    def add_ids(self, encoded: RaggedArray, kept: IntArray | None = None) -> RaggedArray:
        """Adds encoded texts, without EOS, to the token counts and lengths.

        Args:
            encoded: the ids of all texts.
            kept: indices of the texts that are kept; None keeps all.

        Returns:
            The ids of those that are kept, cut to the limit (minus one, for EOS); what that removes is counted too.
        """
        report, ids = self._report, encoded.values
        report.tokens += len(ids)
        report.unknown += int(np.count_nonzero(ids == UNK_ID))
        report.byte_pieces += int(np.count_nonzero(self._is_byte[ids]))
        self._lengths.update((encoded.lengths + 1).tolist())
        whole = encoded if kept is None else encoded.gather(kept)
        cut = whole.truncate(report.limit - 1)
        report.kept_tokens += len(whole.values)
        report.truncated += int(np.count_nonzero(cut.lengths < whole.lengths))
        report.cut_tokens += len(whole.values) - len(cut.values)
        return cut

    def result(self) -> SideReport:
        """Returns the report of everything added."""
        self._report.lengths = _quantiles(self._lengths)
        return self._report


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Computes nearest-rank quantiles from counts of lengths."""
    if not lengths:
        return {}
    values = np.array(sorted(lengths))
    cumulative = np.cumsum([lengths[value] for value in values.tolist()])
    ranks = {name: np.ceil(quantile * cumulative[-1]) for name, quantile in _QUANTILES.items()}
    return {name: int(values[np.searchsorted(cumulative, rank)]) for name, rank in ranks.items()}
