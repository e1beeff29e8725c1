import pytest

from seq2seq.preflight.language_id import SideClassifier, script_of

ENGLISH = ["the dog sees the cat", "a man buys the old house", "the woman reads a book", "the child has a dog"]
GERMAN = [
    "der Hund sieht die Katze",
    "ein Mann kauft das alte Haus",
    "die Frau liest ein Buch",
    "das Kind hat einen Hund",
]
PAIRS = list(zip(ENGLISH, GERMAN, strict=True)) * 10


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, 世!", "LATIN"),
        ("привет OK", "CYRILLIC"),
        ("你好", "CJK"),
        ("ｈｅｌｌｏ", "FULLWIDTH"),
        ("123 ... !", None),
        ("", None),
        ("\ud800", None),  # a lone surrogate has no name
    ],
)
def test_script_of_most_letters(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_pairs_are_correct_swapped_or_in_one_language() -> None:
    classifier = SideClassifier(PAIRS)
    pairs = [
        ("the man sees the dog", "der Mann sieht den Hund"),
        ("der Mann sieht die Frau", "the man sees a dog"),
        ("the man sees the dog", "the man sees the dog"),
        ("die Frau sieht das Haus", "die Frau sieht das Haus"),
        ("12", "12"),
    ]
    found = classifier.classify(pairs, leave_one_out=False, max_listed=5)
    assert (found.correct, found.swapped, found.both_source, found.both_target) == (1, 1, 1, 1)
    assert found.first_swapped == [1]
    assert classifier.classify(pairs[1:2] * 5, leave_one_out=False, max_listed=3).first_swapped == [0, 1, 2]


def test_a_known_pair_is_judged_by_the_others() -> None:
    alone = [("uno dos tres cuatro", "eins zwei drei vier")]
    classifier = SideClassifier(alone)
    assert classifier.classify(alone, leave_one_out=True, max_listed=5).correct == 0
    assert classifier.classify(alone, leave_one_out=False, max_listed=5).correct == 1
