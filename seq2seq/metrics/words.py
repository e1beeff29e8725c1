"""Words of any script: what ROUGE and the statistics of summaries count where rouge-score's own words do not serve."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")
_ASCII_WORD = re.compile("[a-z0-9]+")


class UnicodeTokenizer:
    """Words of text in any script, or characters where a script puts no spaces between words."""

    def tokenize(self, text: str) -> list[str]:
        """Splits NFKC-normalised, lower-cased text into runs of letters, marks and digits.

        Characters of unspaced scripts (Chinese, Japanese, Thai, ...) are tokens of their own; combining marks
        stay with what they mark. Everything else separates.
        """
        if text.isascii():  # the same tokens, twenty times faster
            return _ASCII_WORD.findall(text.lower())
        normal = unicodedata.normalize("NFKC", text).lower()
        return [normal[start:end] for start, end in _spans(normal)]


def first_words(text: str, count: int) -> str:
    """The beginning of a text, up to and with its `count`-th word as `UnicodeTokenizer` counts them."""
    end = 0
    for number, (_, end_of_word) in enumerate(_spans(text), start=1):
        if number > count:
            return text[:end]
        end = end_of_word
    return text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yields where each word starts and ends."""
    start = None
    first = "other"  # the kind of the open word's first character
    for place, character in enumerate(text):
        kind = _character_kind(character)
        if start is not None and (kind == "mark" or kind == first == "word"):
            continue
        if start is not None:
            yield start, place
        start, first = (None, "other") if kind == "other" else (place, kind)
    if start is not None:
        yield start, len(text)


@lru_cache(maxsize=2**16)
def _character_kind(character: str) -> str:
    """Classifies a character as "word", "single", "mark" or "other"."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category[0] not in "LN":
        return "other"
    return "single" if unicodedata.name(character, "").startswith(_UNSPACED_SCRIPTS) else "word"
