"""Building blocks of a kind of report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Sentence = tuple[str, ...]  # alternative wordings of one sentence


@dataclass(frozen=True)
class Outcome:
    """A possible outcome of a topic: its summary, and the words that depend on it."""

    summary: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topic:
    """One kind of report.

    Key sentences (`keys`) contain the facts that the summary needs; side sentences (`sides`) contain other names and
    numbers of the same kinds. In both, a paragraph is a sentence and each of its lines an alternative wording.
    `{name}` is replaced by a word of the outcome, a word drawn from `choices` (separated by `|`), or else by a fact
    drawn by its pattern (person, town, percent, ...).
    """

    outcomes: tuple[Outcome, ...]
    choices: Mapping[str, str]
    keys: str
    sides: str


def sentences(text: str) -> tuple[Sentence, ...]:
    """Splits a text into paragraphs, and each into lines."""
    return tuple(tuple(paragraph.splitlines()) for paragraph in text.strip().split("\n\n"))
