r"""A tokenizer wrapper that encodes line breaks as tokens.

SentencePiece's normalization turns a line break into a space, and torchtext's splitters drop it, so that the
model would not see the lines and paragraphs of a document. Here each line is encoded by itself, so that its
first word gets the same token as at the start of any text, and `LINE_BREAK_ID` separates the lines. The wrapped
tokenizer never produces that id, whatever characters a user types.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from seq2seq.tokenizers.base import LINE_BREAK_ID, LINE_BREAK_LABEL, Tokenizer

_CARRIAGE_RETURNS = re.compile(r"\r+\n")


class LineRule(str, Enum):
    r"""Which line breaks are kept.

    `tidy` is for normalizations that tidy up spaces: carriage returns before ``\n`` are part of the line
    break, line breaks at either end of a text are dropped, and consecutive blank lines are reduced to one.
    `exact` is for `identity` and keeps each line unchanged.
    """

    tidy = "tidy"
    exact = "exact"


class MultilineTokenizer(Tokenizer):
    """Encodes lines with another tokenizer, and the line breaks between them as `LINE_BREAK_ID`.

    Args:
        line_tokenizer: encodes and decodes single lines; its vocabulary has a symbol at `LINE_BREAK_ID`.
        rule: which line breaks are kept.
    """

    def __init__(self, line_tokenizer: Tokenizer, rule: LineRule) -> None:
        self._line_tokenizer = line_tokenizer
        self._rule = rule
        self.vocab_size = line_tokenizer.vocab_size

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        return self._encode_lines(texts, self._line_tokenizer.encode_batch)

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Tokenizer.sample_batch`; line breaks are encoded as in `encode_batch`."""
        return self._encode_lines(texts, functools.partial(self._line_tokenizer.sample_batch, seed=seed))

    def decode(self, ids: Sequence[int]) -> str:
        r"""See `Tokenizer.decode`; each line break becomes ``\n``."""
        lines: list[list[int]] = [[]]
        for token in map(int, ids):
            if token == LINE_BREAK_ID:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(self._line_tokenizer.decode, lines))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """See `Tokenizer.pieces`; a line break is labelled `LINE_BREAK_LABEL`."""
        labels = self._line_tokenizer.pieces(ids)
        return [LINE_BREAK_LABEL if token == LINE_BREAK_ID else label for token, label in zip(ids, labels, strict=True)]

    def is_byte(self, token_id: int) -> bool:
        """See `Tokenizer.is_byte`."""
        return self._line_tokenizer.is_byte(token_id)

    def fingerprint(self) -> str:
        """See `Tokenizer.fingerprint`; covers the rule and the line tokenizer."""
        return hashlib.sha256(
            f"line breaks:{self._rule.value}\n{self._line_tokenizer.fingerprint()}".encode()
        ).hexdigest()

    def settings(self) -> dict[str, str | bool | int | float]:
        """See `Tokenizer.settings`."""
        return {**self._line_tokenizer.settings(), "line_breaks": self._rule.value}

    def save(self, folder: Path, name: str) -> Path:
        """See `Tokenizer.save`."""
        return self._line_tokenizer.save(folder, name)

    def _encode_lines(
        self, texts: Sequence[str], encode_batch: Callable[[Sequence[str]], list[list[int]]]
    ) -> list[list[int]]:
        """Encodes the lines of all texts in one batch, and joins those of each text."""
        texts_as_lines = [split_lines(text, self._rule) for text in texts]
        rows = iter(encode_batch(list(itertools.chain.from_iterable(texts_as_lines))))
        return [_join(list(itertools.islice(rows, len(lines))), self._rule) for lines in texts_as_lines]


def split_lines(text: str, rule: LineRule) -> list[str]:
    """Splits a text into one or more lines."""
    return (_CARRIAGE_RETURNS.sub("\n", text) if rule is LineRule.tidy else text).split("\n")


def _join(rows: list[list[int]], rule: LineRule) -> list[int]:
    """Joins the ids of a text's lines by `LINE_BREAK_ID`."""
    if rule is LineRule.tidy:
        # Keeps one blank line of several, and none at either end.
        rows = [row for row, before in zip(rows, [[], *rows], strict=False) if row or before]
        if rows and not rows[-1]:
            rows.pop()
    ids: list[int] = []
    for row in rows:
        ids += [LINE_BREAK_ID, *row]
    return ids[1:]
