import itertools
import random

import pytest

from seq2seq.metrics import MetricsConfig
from seq2seq.metrics.baselines import baseline_texts, lead, oracle, rouge_1_2_f1
from seq2seq.metrics.words import unicode_words

SOURCE = "Hi Ann,\nThe meeting has moved. See you at 9 a.m. on Monday!\nThanks"


@pytest.mark.parametrize(
    ("sentences", "words", "text"),
    [
        (1, None, "Hi Ann,"),
        (2, None, "Hi Ann,\nThe meeting has moved."),
        (9, None, "Hi Ann,\nThe meeting has moved.\nSee you at 9 a.m. on Monday!\nThanks"),
        (2, 4, "Hi Ann,\nThe meeting"),
        (1, 4, "Hi Ann,"),
    ],
)
def test_lead(sentences, words, text):
    assert lead(SOURCE, sentences=sentences, words=words) == text


def test_oracle_by_hand():
    assert oracle(SOURCE, ["meeting has moved"], unicode_words) == "The meeting has moved."
    assert oracle(SOURCE, ["meeting moved to Monday, Ann"], unicode_words) == "Hi Ann,\nThe meeting has moved."
    assert oracle(SOURCE, ["nothing in common"], unicode_words) == ""
    assert oracle("", ["a"], unicode_words) == ""
    assert oracle(SOURCE, [""], unicode_words) == ""
    assert oracle("今天很好。我们去公园。", ["去公园"], unicode_words) == "我们去公园。"


def test_oracle_takes_the_first_of_references_that_are_matched_equally():
    assert oracle("Go on. Stay here.", ["go on", "stay here"], unicode_words) == "Go on."


def test_oracle_takes_the_reference_that_is_matched_best():
    assert oracle(SOURCE, ["see Ann", "the meeting has moved"], unicode_words) == "The meeting has moved."


def value(text, reference):
    return rouge_1_2_f1(unicode_words(text), unicode_words(reference))


def test_oracle_lies_between_the_best_sentence_and_the_best_subset():
    rng = random.Random(2)
    reached = 0
    for _ in range(150):
        lines = [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 6))]
        reference = " ".join(rng.choices("abcdefgh", k=rng.randint(1, 8)))
        chosen = value(oracle("\n".join(lines), [reference], unicode_words), reference)
        subsets = (c for size in range(1, len(lines) + 1) for c in itertools.combinations(lines, size))
        best = max(value("\n".join(subset), reference) for subset in subsets)
        assert max(value(line, reference) for line in lines) <= chosen <= best
        reached += chosen == best
    assert reached > 100  # greedy choice seldom misses


def test_chosen_sentences_keep_their_order():
    assert oracle("x y.\na b.\nc d e.\nz", ["c d e a b"], unicode_words) == "a b.\nc d e."


def test_only_what_is_configured_is_made():
    texts = baseline_texts([SOURCE], [["x"]], MetricsConfig(baselines=["lead"]), target_language="en")
    assert texts == {
        "lead": (
            ["Hi Ann,\nThe meeting has moved.\nSee you at 9 a.m. on Monday!"],
            {"text": "lead", "sentences": 3, "words": "all"},
        )
    }
    assert baseline_texts([SOURCE], [["x"]], MetricsConfig(), target_language="en") == {}
