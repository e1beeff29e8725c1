"""Made-up names and numbers of the demo reports: so many that nearly all are new in each report.

Names are composed of syllables from 51 onsets, 21 vowels, some accented, and 33 codas: two syllables give over a
billion names, so that no model can guess how a name continues. Any resemblance to real names is a coincidence.
"""

from __future__ import annotations

import random
import re

_ONSETS = """
b br bl c ch cr d dr f fl fr g gl gr h j k kl kn kr kv l m n p pl pr qu r rh s sch sh sk sl sm sn st str sv t
th tr v vr w wh y z zh zw
"""
_VOWELS = "a a a a e e e e i i i i o o o o u u u y ae ai au ea ei eu ia io oa ou é ö å ü ó"
_CODAS = "b ck d f g k l ll lm lt m mp n nd ng nk nn nt p r rd rk rl rn rt s sk ss st t tz x z"
_SURNAME_PREFIXES = ("De ", "Mac", "O'", "Van ")
_NAME_FORMS = {
    "town": ("{}", "{}", "{}", "{} Bay", "Port {}", "Upper {}", "{} Falls", "New {}"),
    "company": ("{} Group", "{} & Sons", "{} Holdings", "{} Partners", "{} Works", "{} Brothers"),
    "club": ("{} United", "{} Rovers", "{} Athletic", "FC {}", "{} Wanderers", "Real {}"),
}
_MONTHS = "January February March April May June July August September October November December"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O, which look like digits
_NUMBER_FORMS = {  # <A> is a letter, <first-last> a number of this range with at least as many digits as its first
    "code": "<A><A>-<1000-9999>", "flight": "<A><A><100-999>", "phone": "0<200-999>-<10000-99999>",
    "million": "<2-499>.<1-9>", "percent": "<2-48>.<1-9>", "majority": "<50-74>.<1-9>",
    "time": "<2-5>:<00-59>:<00-59>", "hour": "<5-23>:<00-59>", "hundreds": "<101-998>", "dozens": "<13-98>",
    "year": "<1810-2014>", "old": "<101-1798>", "speed": "<81-189>",
}  # fmt: skip


class FactSource:
    """Draws names and numbers by pattern."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    def draw(self, pattern: str) -> str:
        """Draws a name or number.

        Args:
            pattern: `person`, `town`, `code`, ...: a key of a table above, or a method of this class.

        Raises:
            AttributeError: The pattern does not exist.
        """
        if pattern in _NAME_FORMS:
            return self._random.choice(_NAME_FORMS[pattern]).format(self._root(2))
        if pattern in _NUMBER_FORMS:
            return re.sub(r"<A>|<(\d+)-(\d+)>", self._letter_or_number, _NUMBER_FORMS[pattern])
        return str(getattr(self, f"_{pattern}")())

    def _letter_or_number(self, form: re.Match[str]) -> str:
        if form[0] == "<A>":
            return self._random.choices(_LETTERS)[0]
        return str(self._random.randint(int(form[1]), int(form[2]))).zfill(len(form[1]))

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

    def _brand(self) -> str:
        """Draws the name of a product, ship or horse."""
        return self._root(self._random.choice((2, 2, 3)))

    def _date(self) -> str:
        return f"{self._random.randint(1, 28)} {self._pick(_MONTHS)}"

    def _win(self) -> str:
        points = self._random.randint(60, 119)
        return f"{points}-{points - self._random.randint(2, 30)}"

    def _defeat(self) -> str:
        points = self._random.randint(60, 109)
        return f"{points}-{points + self._random.randint(2, 30)}"

    def _thousands(self) -> str:
        return f"{self._random.randrange(1100, 99_000, 10):,}"

    def _euros(self) -> str:
        return f"{self._random.randrange(10_000, 990_000, 50):,}"
