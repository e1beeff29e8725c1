"""Made-up news reports with summaries of one or two sentences.

`reports(seed)` yields them endlessly; the same seed yields the same reports. Summarizing them requires selecting the
relevant facts among others of the same kind, and copying names and numbers, nearly all of which are new in each
report.
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
_NUM_SIDES = (3, 3, 4, 4, 5)  # number of side sentences in a report, drawn at random
_LATE_SHARE = 0.25
_PARAGRAPHS_SHARE = 0.3
_HEADED_SHARE = 0.15
_HEADINGS = ("Ref. {code9}", "{town9}, {date9}", "{hour9}, by {person9}", "Report {code9}", "By {person9}, {town9}")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Report(NamedTuple):
    """A document with its summary.

    Attributes:
        document: 5 to 8 sentences, sometimes with line breaks.
        summary: One or two sentences.
        facts: The names and numbers of the summary, verbatim in both texts, in the order of the summary.
    """

    document: str
    summary: str
    facts: tuple[str, ...]


class Facts(dict[str, str]):
    """The facts of one report, all different, each drawn on first access.

    The pattern of a fact is its name without the trailing number: person and person2 are two persons.
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


def _fill(text: str, words: dict[str, str], facts: Facts) -> str:
    """Fills the placeholders of a text and capitalizes its first letter."""
    # Words may contain placeholders of facts.
    worded = _PLACEHOLDER.sub(lambda match: words.get(match[1], match[0]), text)
    filled = _PLACEHOLDER.sub(lambda match: facts[match[1]], worded)
    return filled[0].upper() + filled[1:]


def report(topic: Topic, rng: random.Random) -> Report:
    """Writes one report on a topic."""
    outcome = rng.choice(topic.outcomes)
    choices = {name: rng.choice(values.split("|")) for name, values in topic.choices.items()}
    words, facts = {**choices, **outcome.words}, Facts(rng)

    def sentence(wordings: Sentence) -> str:
        return _fill(rng.choice(wordings), words, facts)

    keys = [sentence(wordings) for wordings in sentences(topic.keys)]
    sides = [sentence(wordings) for wordings in rng.sample(sentences(topic.sides), rng.choice(_NUM_SIDES))]
    # The event comes before its details; in a quarter of the reports, a side sentence comes first.
    opening = [sides.pop()] if rng.random() < _LATE_SHARE else []
    rest = [*keys[1:], *sides]
    rng.shuffle(rest)
    body = _format_paragraphs([*opening, keys[0], *rest], rng)
    heading = sentence(_HEADINGS) + "\n" if rng.random() < _HEADED_SHARE else ""
    told = tuple(facts[name] for name in _PLACEHOLDER.findall(outcome.summary) if name not in words)
    return Report(heading + body, _fill(outcome.summary, words, facts), told)


def _format_paragraphs(parts: list[str], rng: random.Random) -> str:
    """Joins the sentences into one line, or two paragraphs."""
    if rng.random() >= _PARAGRAPHS_SHARE:
        return " ".join(parts)
    cut = rng.randrange(1, len(parts))
    return " ".join(parts[:cut]) + "\n" + " ".join(parts[cut:])


def reports(seed: int) -> Iterator[Report]:
    """Yields reports endlessly, determined by the seed."""
    rng = random.Random(seed)
    while True:
        yield report(rng.choice(_TOPICS), rng)
