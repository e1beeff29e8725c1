import pytest

from seq2seq.metrics.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two!  Three? four", ["One.", "Two!", "Three?", "four"]),
        ("a\nb\n\n c ", ["a", "b", "c"]),
        ("Really?! Yes... no", ["Really?!", "Yes...", "no"]),
        ('He said "stop." Then (he left.) Good.', ['He said "stop."', "Then (he left.)", "Good."]),
        ("今天很好。我们去吗？去！", ["今天很好。", "我们去吗？", "去！"]),
        ("「走吧。」他说", ["「走吧。」", "他说"]),
        ("هل أنت بخير؟ نعم. شكرا", ["هل أنت بخير؟", "نعم.", "شكرا"]),
        ("Meet J. Smith at 9 a.m. in the U.S. office", ["Meet J. Smith at 9 a.m. in the U.S. office"]),
        ("1. Agenda\n2. Minutes", ["1. Agenda", "2. Minutes"]),
        ("see www.a.org or 3.5 percent", ["see www.a.org or 3.5 percent"]),
        ("It was 1999. Then", ["It was 1999.", "Then"]),
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
    ],
)
def test_rule(text, sentences):
    assert split_sentences(text) == sentences
    assert split_sentences("\n".join(sentences)) == sentences
