"""What a kind of report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Sentence = tuple[str, ...]  # the wordings of one sentence


@dataclass(frozen=True)
class Outcome:
    """One way a report of a topic can end: its summary, and the words that depend on it."""

    summary: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topic:
    """One kind of report.

    Its key sentences carry the facts that the summary needs, its side sentences other names and numbers of
    the same sort. In both texts a paragraph is a sentence and each of its lines a wording of it. `{name}`
    stands for a word of the outcome, a word drawn from `choices`, or else a fact, drawn by its pattern (person,
    town, percent, ...). `choices` are separated by `|`.
    """

    outcomes: tuple[Outcome, ...]
    choices: Mapping[str, str]
    keys: str
    sides: str


def sentences(text: str) -> tuple[Sentence, ...]:
    """The paragraphs of a text, each as its lines."""
    return tuple(tuple(paragraph.splitlines()) for paragraph in text.strip().split("\n\n"))
