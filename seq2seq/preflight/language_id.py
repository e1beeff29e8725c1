"""Which side of a corpus a text belongs to, judged by its writing and by its words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

_WORD = re.compile(r"[^\W\d_]+")
_CLEAR = 3.0  # nats: odds of 20 to 1 that a text is of the one side rather than of the other
_PRIOR = 0.5  # added to counts (Jeffreys), so that a word that one side lacks decides nothing alone


@lru_cache(maxsize=1 << 16)
def _script(char: str) -> str | None:
    """A letter's script as the first word of its Unicode name, such as ``LATIN`` or ``CJK``; None of other signs."""
    return re.split("[ -]", unicodedata.name(char, ""))[0] or None if char.isalpha() else None


def script_of(text: str) -> str | None:
    """The script of most letters of a text; None of a text without letters."""
    letters: Counter[str] = Counter()
    for char, count in Counter(text).items():
        script = _script(char)
        if script is not None:
            letters[script] += count
    return letters.most_common(1)[0][0] if letters else None


@dataclass(frozen=True)
class SideCounts:
    """How many pairs are where, judged by words; the rest gives no clear evidence.

    Attributes:
        in_place: both texts look like their own side.
        swapped: each text looks like the other side.
        source_strayed: both look like the target side.
        target_strayed: both look like the source side.
        first_swapped: places of the first swapped pairs in what was judged, from 0.
    """

    in_place: int
    swapped: int
    source_strayed: int
    target_strayed: int
    first_swapped: list[int]


class WordsOfSides:
    """A naive Bayes classifier of a text's side by the words in it, trained on the corpus itself.

    It needs no knowledge of languages (as Cavnar and Trenkle, 1994, "N-gram-based text categorization", needs
    profiles): as long as most pairs are the right way round, their words outvote those of the others.

    Args:
        pairs: source and target texts.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        self._source: Counter[str] = Counter()
        self._target: Counter[str] = Counter()
        for source, target in pairs:
            self._source.update(_words(source))
            self._target.update(_words(target))
        self._offset = log((self._target.total() + _PRIOR) / (self._source.total() + _PRIOR))

    def judge(self, pairs: Sequence[tuple[str, str]], *, known: bool, first: int) -> SideCounts:
        """Counts which pairs are in place.

        Args:
            pairs: source and target texts.
            known: whether they are those of the training; each is then judged by the others alone.
            first: how many places of swapped pairs are told.
        """
        counts: Counter[tuple[int, int]] = Counter()
        swapped: list[int] = []
        for place, (source, target) in enumerate(pairs):
            mine, yours = _words(source), _words(target)
            where = (self._leaning(mine, mine, yours, known=known), self._leaning(yours, mine, yours, known=known))
            counts[where] += 1
            if where == (-1, 1) and len(swapped) < first:
                swapped.append(place)
        return SideCounts(counts[1, -1], counts[-1, 1], counts[-1, -1], counts[1, 1], swapped)

    def _leaning(self, words: set[str], source: set[str], target: set[str], *, known: bool) -> int:
        """1 for a text that looks like a source, -1 for one like a target, 0 where it is not clear."""
        evidence = 0.0
        for word in words:
            in_source = self._source[word] - (known and word in source)
            in_target = self._target[word] - (known and word in target)
            evidence += log((in_source + _PRIOR) / (in_target + _PRIOR)) + self._offset
        return (evidence >= _CLEAR) - (evidence <= -_CLEAR)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
