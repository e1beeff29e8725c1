"""Word tokenization for any script, for the summary statistics and for ROUGE on non-Latin text."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")
_ASCII_WORD = re.compile("[a-z0-9]+")


def unicode_words(text: str) -> list[str]:
    """Splits NFKC-normalised, lower-cased text of any script into runs of letters, marks and digits.

    Each character of an unspaced script (Chinese, Japanese, Thai, ...) is a token; combining marks stay with their base
    character. Everything else is a separator.
    """
    if text.isascii():  # the same tokens, twenty times faster
        return _ASCII_WORD.findall(text.lower())
    normal = unicodedata.normalize("NFKC", text).lower()
    return [normal[start:end] for start, end in _spans(normal)]


def ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """Returns all n-grams of `order` words, with repeats, from left to right."""
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def first_words(text: str, count: int) -> str:
    """Returns the beginning of a text, up to and including its `count`-th word by `unicode_words`."""
    end = 0
    for num_words, (_, word_end) in enumerate(_spans(text), start=1):
        if num_words > count:
            return text[:end]
        end = word_end
    return text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yields the start and end offset of each word."""
    start = None
    first = "other"  # kind of the current word's first character
    for offset, character in enumerate(text):
        kind = _character_kind(character)
        if start is not None and (kind == "mark" or kind == first == "word"):
            continue
        if start is not None:
            yield start, offset
        start, first = (None, "other") if kind == "other" else (offset, kind)
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
