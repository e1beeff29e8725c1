r"""Line breaks as tokens of their own, around any other tokenizer.

SentencePiece's normalisation makes a space of a line break, and torchtext's splitters drop it, so that a
document loses its lines and paragraphs on the way to the model. Here each line is encoded by itself, which
gives its first word the token that it has at the start of any text, and `LINE_BREAK_ID` stands between two
lines. No tokenizer of lines ever gives that id, whatever characters a user types.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path

from seq2seq.tokenizers.base import LINE_BREAK_ID, LINE_BREAK_LABEL, Tokenizer

_Parts = Iterator[tuple[int, list[int]]]  # how many line breaks, and the ids of the line behind them

_MOST_IN_A_ROW = 2  # the end of a line and one blank line behind it
_CARRIAGE_RETURNS = re.compile(r"\r+\n")


class LineRule(str, Enum):
    r"""Which line breaks are kept.

    `tidy` goes with normalisations that tidy up spaces: carriage returns before ``\n`` are part of the line
    break, line breaks at either end of a text go, and of several blank lines in a row one stays. `exact` goes
    with `identity` and keeps each line as it is.
    """

    tidy = "tidy"
    exact = "exact"


class MultilineTokenizer(Tokenizer):
    """A tokenizer of lines, and a token for the break between two of them.

    Args:
        lines: encodes and decodes single lines; its vocabulary has a symbol at `LINE_BREAK_ID`.
        rule: which line breaks are kept.
    """

    def __init__(self, lines: Tokenizer, rule: LineRule) -> None:
        self._lines = lines
        self._rule = rule
        self.vocab_size = lines.vocab_size

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        split = self._split(texts)
        rows = self._lines.encode_batch(list(itertools.chain.from_iterable(split)))
        return [_joined(parts) for parts in self._parts(split, rows)]

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Tokenizer.sample_batch`; line breaks are as in `encode_batch`."""
        split = self._split(texts)
        rows = self._lines.sample_batch(list(itertools.chain.from_iterable(split)), seed=seed)
        return [_joined(parts) for parts in self._parts(split, rows)]

    def decode(self, ids: Sequence[int]) -> str:
        r"""See `Tokenizer.decode`; each line break becomes ``\n``."""
        lines: list[list[int]] = [[]]
        for token in map(int, ids):
            if token == LINE_BREAK_ID:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(self._lines.decode, lines))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """See `Tokenizer.pieces`; a line break is labelled `LINE_BREAK_LABEL`."""
        labels = self._lines.pieces(ids)
        return [LINE_BREAK_LABEL if token == LINE_BREAK_ID else label for token, label in zip(ids, labels, strict=True)]

    def is_byte(self, token_id: int) -> bool:
        """See `Tokenizer.is_byte`."""
        return self._lines.is_byte(token_id)

    def fingerprint(self) -> str:
        """See `Tokenizer.fingerprint`: of the rule and the tokenizer of lines."""
        return hashlib.sha256(f"line breaks:{self._rule.value}\n{self._lines.fingerprint()}".encode()).hexdigest()

    def settings(self) -> dict[str, str | bool | int | float]:
        """See `Tokenizer.settings`."""
        return {**self._lines.settings(), "line_breaks": self._rule.value}

    def save(self, folder: Path, name: str) -> Path:
        """See `Tokenizer.save`."""
        return self._lines.save(folder, name)

    def _split(self, texts: Sequence[str]) -> list[list[str]]:
        return [split_lines(text, self._rule) for text in texts]

    def _parts(self, split: Sequence[Sequence[str]], encoded: Iterable[list[int]]) -> Iterator[_Parts]:
        """The parts of texts, given the ids of all their lines one behind the other: line breaks and what follows."""
        parts = _parts_exact if self._rule is LineRule.exact else _parts_tidy
        rows = iter(encoded)
        return (parts(itertools.islice(rows, len(lines))) for lines in split)


def split_lines(text: str, rule: LineRule) -> list[str]:
    """The lines of a text, at least one."""
    return (_CARRIAGE_RETURNS.sub("\n", text) if rule is LineRule.tidy else text).split("\n")


def _parts_exact(rows: Iterator[list[int]]) -> _Parts:
    yield 0, next(rows)
    for row in rows:
        yield 1, row


def _parts_tidy(rows: Iterator[list[int]]) -> _Parts:
    first, breaks = True, 0
    for row in rows:
        if len(row):
            yield 0 if first else min(breaks, _MOST_IN_A_ROW), row
            first, breaks = False, 0
        breaks += 1


def _joined(parts: _Parts) -> list[int]:
    joined: list[int] = []
    for breaks, row in parts:
        joined += [LINE_BREAK_ID] * breaks
        joined += row
    return joined
