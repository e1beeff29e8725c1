"""Language identification: whether a text looks like a source or a target, by its script and by its words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

_WORD = re.compile(r"[^\W\d_]+")
_MIN_LOG_ODDS = 3.0  # nats: odds of 20 to 1 that a text belongs to one side rather than to the other
_PRIOR = 0.5  # added to counts (Jeffreys), so that one word that a side lacks does not decide alone


@lru_cache(maxsize=1 << 16)
def _script(char: str) -> str | None:
    """Returns a letter's script, the first word of its Unicode name (``LATIN``, ``CJK``); None if it is no letter."""
    return re.split("[ -]", unicodedata.name(char, ""))[0] or None if char.isalpha() else None


def script_of(text: str) -> str | None:
    """Returns the script of most letters of a text; None if it has no letters."""
    letters: Counter[str] = Counter()
    for char, count in Counter(text).items():
        script = _script(char)
        if script is not None:
            letters[script] += count
    return letters.most_common(1)[0][0] if letters else None


@dataclass(frozen=True)
class SideCounts:
    """How many pairs look correct, swapped, or in one language, by their words; the other pairs are unclear.

    Attributes:
        correct: each text looks like its own side.
        swapped: each text looks like the other side.
        both_target: both texts look like targets.
        both_source: both texts look like sources.
        first_swapped: indices of the first swapped pairs among those classified, from 0.
    """

    correct: int
    swapped: int
    both_target: int
    both_source: int
    first_swapped: list[int]


class SideClassifier:
    """A naive Bayes classifier that tells sources from targets by their words, trained on the corpus itself.

    It needs no language profiles (unlike Cavnar and Trenkle, 1994, "N-gram-based text categorization"): as long as
    most pairs are the right way round, their words outvote those of the others.

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

    def classify(self, pairs: Sequence[tuple[str, str]], *, leave_one_out: bool, max_listed: int) -> SideCounts:
        """Classifies both texts of each pair and counts the outcomes.

        Args:
            pairs: source and target texts.
            leave_one_out: whether these are the pairs that the classifier was trained on; each is then classified by
                the words of the others alone.
            max_listed: how many indices of swapped pairs are returned at most.
        """
        counts: Counter[tuple[int, int]] = Counter()
        swapped: list[int] = []
        for index, (source, target) in enumerate(pairs):
            source_words, target_words = _words(source), _words(target)
            predicted = (
                self._predict_side(source_words, source_words, target_words, leave_one_out=leave_one_out),
                self._predict_side(target_words, source_words, target_words, leave_one_out=leave_one_out),
            )
            counts[predicted] += 1
            if predicted == (-1, 1) and len(swapped) < max_listed:
                swapped.append(index)
        return SideCounts(
            correct=counts[1, -1],
            swapped=counts[-1, 1],
            both_target=counts[-1, -1],
            both_source=counts[1, 1],
            first_swapped=swapped,
        )

    def _predict_side(self, words: set[str], source: set[str], target: set[str], *, leave_one_out: bool) -> int:
        """Returns 1 if words look like a source, -1 if they look like a target, 0 if that is unclear.

        ``source`` and ``target`` are the words of the pair, which leave-one-out takes off the counts.
        """
        log_odds = 0.0
        for word in words:
            in_source = self._source[word] - (leave_one_out and word in source)
            in_target = self._target[word] - (leave_one_out and word in target)
            log_odds += log((in_source + _PRIOR) / (in_target + _PRIOR)) + self._offset
        return (log_odds >= _MIN_LOG_ODDS) - (log_odds <= -_MIN_LOG_ODDS)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
