"""Short made-up news reports with one-sentence summaries.

`reports(seed)` streams them for ever, always the same ones for the same seed. Writing the summary takes
finding the facts that matter among others of the same kind, and copying names and numbers, most of which are
new in each report.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from demo_affairs import AFFAIRS
from demo_events import EVENTS
from demo_topic import Topic

_FIRST = """
Ada Ben Cora Dirk Elsa Finn Greta Hugo Ines Jan Kira Lars Mona Nils Olga Per Rosa Sven Tara Uwe Vera
Willem Yara Zeno Alma Bruno Celia Dario Edda Fabian Gemma Henrik Iris Joel Karin Leon Mira Noah Otto
Paula Rune Selma Tomas Ulla Viktor Wanda
"""
_SURNAME_STARTS = """
Al Bar Bran Cal Dal Del Dor El Fal Far Gar Hal Har Hol Kal Kar Kel Lan Lor Mal Mar Mer Mor Nor Ol Pel Per
Ral Ros Sal San Sel Sor Tal Tor Val Ver Vol War Wil Zan
"""
_SURNAME_MIDDLES = "a e i o u en in an er or ev is ad"
_SURNAME_ENDS = "berg dale feld gren hult kamp land lund man nik quist rud sen sky son stad stein tov vik"
_TOWN_STARTS = """
Alder Amber Ash Birch Black Brook Cedar Clear Cold Crow Deer Dun East Elm Fair Fern Fox Glen Gold Green
Hart Hazel High Iron Kings Lake Long Maple Marsh Mill Moss North Oak Old Pine Red River Rose Salt Silver
Snow South Stone Swan Thorn West White Wild Winter Wolf
"""
_TOWN_ENDS = """
bridge brook burg bury dale field ford ham haven hill hurst mouth port stead ton vale ville wick wood
worth
"""
_COMPANY_MIDDLES = "dex lin max nova tec ro"
_COMPANY_ENDS = "Group Works Holding Partners Industries Brothers"
_CLUB_ENDS = "Rovers United Wanderers Athletic Rangers City"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_MONTHS = "January February March April May June July August September October November December"
_SIDES = (2, 3, 3, 4, 5)  # how many side sentences a report has
_LATE_SHARE = 0.25
_TOPICS = (*AFFAIRS, *EVENTS)
_HOLE = re.compile(r"\{(\w+)\}")


class Facts(dict[str, str]):
    """The facts of one report, each drawn when a sentence first asks for it, all different.

    The pattern of a fact is its name without the number at the end: person and person2 are two persons.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._random = rng

    def __missing__(self, name: str) -> str:
        value = self._draw(name.rstrip("0123456789"))
        while value in self.values():
            value = self._draw(name.rstrip("0123456789"))
        self[name] = value
        return value

    def _word(self, table: str) -> str:
        return self._random.choice(table.split())

    def _draw(self, pattern: str) -> str:
        draw = getattr(self, f"_{pattern}", None)
        if draw is not None:
            return str(draw())
        low, high, step = _RANGES[pattern]
        value = self._random.randrange(low, high, step)
        return f"{value:,}" if pattern == "thousands" else str(value)

    def _person(self) -> str:
        middle = self._word(_SURNAME_MIDDLES)
        return f"{self._word(_FIRST)} {self._word(_SURNAME_STARTS)}{middle}{self._word(_SURNAME_ENDS)}"

    def _town(self) -> str:
        return self._word(_TOWN_STARTS) + self._word(_TOWN_ENDS)

    def _company(self) -> str:
        name = self._word(_SURNAME_STARTS) + self._word(_SURNAME_MIDDLES) + self._word(_COMPANY_MIDDLES)
        return f"{name} {self._word(_COMPANY_ENDS)}"

    def _club(self) -> str:
        return f"{self._town()} {self._word(_CLUB_ENDS)}"

    def _day(self) -> str:
        return self._word(_DAYS)

    def _month(self) -> str:
        return self._word(_MONTHS)

    def _date(self) -> str:
        return f"{self._random.randint(1, 28)} {self._month()}"

    def _win(self) -> str:
        goals = self._random.randint(1, 5)
        return f"{goals}-{self._random.randrange(goals)}"

    def _defeat(self) -> str:
        goals = self._random.randint(1, 3)
        return f"{goals}-{goals + self._random.randint(1, 2)}"

    def _level(self) -> str:
        goals = self._random.randint(1, 4)
        return f"{goals}-{goals}"

    def _clock(self, hours: int) -> str:
        return f"{hours}:{self._random.randrange(60):02d}:{self._random.randrange(60):02d}"

    def _record(self) -> str:
        return self._clock(2)

    def _time(self) -> str:
        return self._clock(3)

    def _slower(self) -> str:
        return self._clock(4)

    def _hour(self) -> str:
        return f"{self._random.randint(17, 22)}:{self._random.randrange(0, 60, 5):02d}"

    def _phone(self) -> str:
        return f"0{self._random.randint(200, 999)}-{self._random.randint(10000, 99999)}"


_RANGES = {
    "million": (2, 400, 1), "majority": (51, 75, 1), "minority": (5, 25, 1), "crew": (20, 190, 1),
    "percent": (3, 80, 1), "thousands": (1100, 60000, 100), "hundreds": (30, 990, 1),
    "few": (4, 20, 1), "years": (21, 90, 1), "year": (1890, 2015, 1), "old": (100, 1600, 1),
    "minute": (80, 90, 1), "left": (2, 10, 1), "speed": (80, 190, 1),
}  # fmt: skip


def _filled(text: str, facts: Facts) -> str:
    return _HOLE.sub(lambda hole: facts[hole[1]], text)


def _sentence(wordings: tuple[str, ...], facts: Facts, rng: random.Random) -> str:
    text = _filled(rng.choice(wordings), facts)
    return text[0].upper() + text[1:]


def report(topic: Topic, rng: random.Random) -> tuple[str, str]:
    """One report on a topic, and its summary."""
    fixed, pattern = rng.choice(topic.outcomes)
    facts = Facts(rng)
    facts.update({name: rng.choice(values) for name, values in topic.choices.items()})
    facts.update({name: _filled(value, facts) for name, value in fixed.items()})
    keys = [_sentence(wordings, facts, rng) for wordings in topic.keys]
    chosen = rng.sample(topic.sides, rng.choice(_SIDES))
    sides = [_sentence(wordings, facts, rng) for wordings in chosen]
    # the event comes before its details, behind some other sentence in a quarter of the reports
    opening = [sides.pop()] if rng.random() < _LATE_SHARE else []
    rest = [*keys[1:], *sides]
    rng.shuffle(rest)
    return " ".join([*opening, keys[0], *rest]), _sentence((pattern,), facts, rng)


def reports(seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of (document, summary), reports of 4 to 7 sentences; the seed decides it."""
    rng = random.Random(seed)
    while True:
        yield report(rng.choice(_TOPICS), rng)
