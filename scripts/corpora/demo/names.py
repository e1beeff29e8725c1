"""Made-up names and numbers of the demo reports: so many that nearly all are new in each report.

Names are composed of syllables from 51 onsets, 21 vowels, some accented, and 33 codas: two syllables give over a
billion names, so that no model can guess how a name continues. Any resemblance to real names is a coincidence.
"""

from __future__ import annotations

import random

_ONSETS = """
b br bl c ch cr d dr f fl fr g gl gr h j k kl kn kr kv l m n p pl pr qu r rh s sch sh sk sl sm sn st str sv t
th tr v vr w wh y z zh zw
"""
_VOWELS = "a a a a e e e e i i i i o o o o u u u y ae ai au ea ei eu ia io oa ou é ö å ü ó"
_CODAS = "b ck d f g k l ll lm lt m mp n nd ng nk nn nt p r rd rk rl rn rt s sk ss st t tz x z"
_SURNAME_PREFIXES = ("De ", "Mac", "O'", "Van ")
_TOWN_FORMS = ("{}", "{}", "{}", "{} Bay", "Port {}", "Upper {}", "{} Falls", "New {}")
_COMPANY_FORMS = ("{} Group", "{} & Sons", "{} Holdings", "{} Partners", "{} Works", "{} Brothers")
_CLUB_FORMS = ("{} United", "{} Rovers", "{} Athletic", "FC {}", "{} Wanderers", "Real {}")
_MONTHS = "January February March April May June July August September October November December"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O, which look like digits


class FactSource:
    """Draws names and numbers by pattern."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    def draw(self, pattern: str) -> str:
        """Draws a name or number.

        Args:
            pattern: `person`, `town`, `code`, ...: a method of this class, or a key of `_RANGES`.

        Raises:
            AttributeError: The pattern does not exist.
        """
        if pattern not in _RANGES:
            return str(getattr(self, f"_{pattern}")())
        low, high, step = _RANGES[pattern]
        value = self._random.randrange(low, high, step)
        return f"{value:,}" if high > _LAST_YEAR else str(value)

    def _pick(self, table: str) -> str:
        return self._random.choice(table.split())

    def _root(self, syllables: int) -> str:
        """Draws a capitalized name; inner syllables mostly end in a vowel, the last one mostly in a coda."""
        rng = self._random
        text = "" if rng.random() < 0.1 else self._pick(_ONSETS)
        for left in reversed(range(syllables)):
            text += self._pick(_VOWELS)
            if rng.random() < (0.2 if left else 0.7):
                text += self._pick(_CODAS)
            if left:
                text += self._pick(_ONSETS)
        return text[0].upper() + text[1:]

    def _person(self) -> str:
        surname = self._root(2)
        if self._random.random() < 0.1:
            surname = self._random.choice(_SURNAME_PREFIXES) + surname
        return f"{self._root(self._random.choice((1, 2)))} {surname}"

    def _town(self) -> str:
        return self._random.choice(_TOWN_FORMS).format(self._root(2))

    def _company(self) -> str:
        return self._random.choice(_COMPANY_FORMS).format(self._root(2))

    def _club(self) -> str:
        return self._random.choice(_CLUB_FORMS).format(self._root(2))

    def _brand(self) -> str:
        """Draws the name of a product, ship or horse."""
        return self._root(self._random.choice((2, 2, 3)))

    def _code(self) -> str:
        return f"{self._letters(2)}-{self._random.randint(1000, 9999)}"

    def _flight(self) -> str:
        return f"{self._letters(2)}{self._random.randint(100, 999)}"

    def _letters(self, count: int) -> str:
        return "".join(self._random.choices(_LETTERS, k=count))

    def _date(self) -> str:
        return f"{self._random.randint(1, 28)} {self._pick(_MONTHS)}"

    def _million(self) -> str:
        return f"{self._random.randint(2, 499)}.{self._random.randint(1, 9)}"

    def _percent(self) -> str:
        return f"{self._random.randint(2, 48)}.{self._random.randint(1, 9)}"

    def _majority(self) -> str:
        return f"{self._random.randint(50, 74)}.{self._random.randint(1, 9)}"

    def _win(self) -> str:
        points = self._random.randint(60, 119)
        return f"{points}-{points - self._random.randint(2, 30)}"

    def _defeat(self) -> str:
        points = self._random.randint(60, 109)
        return f"{points}-{points + self._random.randint(2, 30)}"

    def _time(self) -> str:
        return f"{self._random.randint(2, 5)}:{self._random.randrange(60):02d}:{self._random.randrange(60):02d}"

    def _hour(self) -> str:
        return f"{self._random.randint(5, 23)}:{self._random.randrange(60):02d}"

    def _phone(self) -> str:
        return f"0{self._random.randint(200, 999)}-{self._random.randint(10000, 99999)}"


_LAST_YEAR = 2015  # larger numbers are written with a comma
_RANGES = {  # first, end, step
    "thousands": (1100, 99_000, 10), "euros": (10_000, 990_000, 50), "hundreds": (101, 999, 1),
    "dozens": (13, 99, 1), "year": (1810, _LAST_YEAR, 1), "old": (101, 1799, 1), "speed": (81, 190, 1),
}  # fmt: skip
