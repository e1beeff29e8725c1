"""English-German sentence pairs from a hand-written grammar.

`pairs(seed)` yields them endlessly; the same seed yields the same pairs. Each English sentence has exactly one
German translation: the mapping is a function of the English words, so a model can learn it completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from demo.clauses import Grammar
from demo.compound_sentences import (
    antecedent,
    because,
    condition,
    description,
    intention,
    past_when,
    relative_object,
    relative_subject,
    reported,
)
from demo.lexicon import ADJECTIVES, NOUNS
from demo.settings import FEMALE, MALE, number_words
from demo.simple_sentences import (
    Pair,
    action,
    age,
    birth,
    clock_time,
    comparison,
    existence,
    furniture,
    object_question,
    personal_state,
    place_question,
    possession,
    price,
    quantity_question,
    subject_question,
    traffic,
    weather,
    yes_no_question,
)

OPEN_CLASS = frozenset([*MALE, *FEMALE, *(word for n in range(100) for word in number_words(n))])
_CONTENT_WORDS = {
    *MALE,
    *FEMALE,
    *(noun.english for nouns in NOUNS.values() for noun in nouns),
    *(adjective.english for group in ADJECTIVES.values() for adjective in group),
}

# (weight, sentence kind). The order decides which pairs a seed draws.
RECIPES: tuple[tuple[int, Callable[[Grammar], Pair]], ...] = (
    (26, action), (6, yes_no_question), (3, place_question), (3, object_question), (3, subject_question),
    (2, quantity_question), (8, because), (5, condition), (6, reported), (3, past_when), (9, antecedent),
    (4, description), (2, personal_state), (3, comparison), (2, age), (3, price), (2, birth), (3, existence),
    (3, traffic), (4, furniture), (5, possession), (4, relative_subject), (4, relative_object),
    (4, intention), (2, weather), (1, clock_time),
)  # fmt: skip


def _repeats(english: str) -> bool:
    """Whether a name, noun or adjective occurs twice, as in "Anna calls Anna"."""
    words = [word for word in english.replace("'s", "").strip(".?").split() if word in _CONTENT_WORDS]
    return len(words) > len(set(words))


def pairs(seed: int) -> Iterator[Pair]:
    """Yields (English, German) sentences of 3 to 16 words endlessly, determined by the seed."""
    grammar = Grammar(seed)
    weights, recipes = zip(*RECIPES, strict=True)
    while True:
        english, german = grammar.random.choices(recipes, weights)[0](grammar)
        length_ok = all(3 <= len(text.split()) <= 16 for text in (english, german))
        if length_ok and not _repeats(english):
            yield english, german
