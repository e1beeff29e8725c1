"""Made-up news reports with summaries of one sentence or two.

`reports(seed)` streams them for ever, always the same ones for the same seed. Writing the summary takes
finding the facts that matter among others of the same kind, and copying names and numbers, nearly all of which
are new in each report.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from demo.affairs import AFFAIRS
from demo.events import EVENTS
from demo.names import FactSource
from demo.topic import Sentence, Topic, sentences

_TOPICS = (*AFFAIRS, *EVENTS)
_SIDES = (3, 3, 4, 4, 5)  # how many side sentences a report has
_LATE_SHARE = 0.25
_PARAGRAPHS_SHARE = 0.3
_HEADED_SHARE = 0.15
_HEADINGS = ("Ref. {code9}", "{town9}, {date9}", "{hour9}, by {person9}", "Report {code9}", "By {person9}, {town9}")
_HOLE = re.compile(r"\{(\w+)\}")


class Report(NamedTuple):
    """A document with its summary.

    Attributes:
        document: 5 to 8 sentences, line breaks in some.
        summary: One sentence or two.
        facts: The names and numbers of the summary as they stand in both texts, in the summary's order.
    """

    document: str
    summary: str
    facts: tuple[str, ...]


class Facts(dict[str, str]):
    """The facts of one report, each drawn when a sentence first asks for it, all different.

    The pattern of a fact is its name without the number at the end: person and person2 are two persons.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._source = FactSource(rng)

    def __missing__(self, name: str) -> str:
        pattern = name.rstrip("0123456789")
        value = self._source.draw(pattern)
        while value in self.values():
            value = self._source.draw(pattern)
        self[name] = value
        return value


class _Writer:
    """Fills the sentences of one report with its words and facts."""

    def __init__(self, words: dict[str, str], rng: random.Random) -> None:
        self._words = words
        self._facts = Facts(rng)
        self._random = rng

    def fill(self, text: str) -> str:
        """The text with its holes filled and a capital at its start."""
        worded = _HOLE.sub(lambda hole: self._words.get(hole[1], hole[0]), text)  # words may hold facts
        filled = _HOLE.sub(lambda hole: self._facts[hole[1]], worded)
        return filled[0].upper() + filled[1:]

    def sentence(self, wordings: Sentence) -> str:
        """One of the wordings, filled."""
        return self.fill(self._random.choice(wordings))

    def facts_of(self, pattern: str) -> tuple[str, ...]:
        """What was drawn for the pattern's holes, words aside."""
        return tuple(self._facts[name] for name in _HOLE.findall(pattern) if name not in self._words)


def report(topic: Topic, rng: random.Random) -> Report:
    """One report on a topic."""
    outcome = rng.choice(topic.outcomes)
    choices = {name: rng.choice(values.split("|")) for name, values in topic.choices.items()}
    writer = _Writer({**choices, **outcome.words}, rng)
    keys = [writer.sentence(wordings) for wordings in sentences(topic.keys)]
    sides = [writer.sentence(wordings) for wordings in rng.sample(sentences(topic.sides), rng.choice(_SIDES))]
    # the event comes before its details, behind some other sentence in a quarter of the reports
    opening = [sides.pop()] if rng.random() < _LATE_SHARE else []
    rest = [*keys[1:], *sides]
    rng.shuffle(rest)
    body = _laid_out([*opening, keys[0], *rest], rng)
    heading = writer.sentence(_HEADINGS) + "\n" if rng.random() < _HEADED_SHARE else ""
    return Report(heading + body, writer.fill(outcome.summary), writer.facts_of(outcome.summary))


def _laid_out(parts: list[str], rng: random.Random) -> str:
    """The sentences as one line, or as two paragraphs."""
    if rng.random() >= _PARAGRAPHS_SHARE:
        return " ".join(parts)
    cut = rng.randrange(1, len(parts))
    return " ".join(parts[:cut]) + "\n" + " ".join(parts[cut:])


def reports(seed: int) -> Iterator[Report]:
    """An endless stream of reports; the seed decides it."""
    rng = random.Random(seed)
    while True:
        yield report(rng.choice(_TOPICS), rng)
