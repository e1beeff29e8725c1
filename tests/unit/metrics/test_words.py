import pytest

from seq2seq.metrics.words import first_words, unicode_words


def test_words_of_any_script():
    assert unicode_words("Über-Straße, 3 Äpfel!") == ["über", "straße", "3", "äpfel"]
    assert unicode_words("我爱NLP课") == ["我", "爱", "nlp", "课"]
    assert unicode_words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]  # vowel signs stay with their letters
    assert unicode_words("한국어 문장") == ["한국어", "문장"]
    assert unicode_words("ไปบ้าน") == ["ไ", "ป", "บ้", "า", "น"]
    assert unicode_words("\u0301 a") == ["\u0301", "a"]  # a mark with nothing to mark
    assert unicode_words("... !?") == []
    assert unicode_words("") == []


def test_ascii_text_has_the_same_words_beside_other_text():
    text = "It's 9:00, snake_case; e-mail to a.b@c.org -- (see: RFC 2822)"
    assert unicode_words(text) == unicode_words(f"{text} é")[:-1]


@pytest.mark.parametrize(
    ("text", "count", "beginning"),
    [
        ("It's here, now.", 3, "It's here"),
        ("It's here, now.", 4, "It's here, now.",),
        ("one two", 9, "one two"),
        ("我爱你们", 2, "我爱"),
        ("one two", 0, ""),
    ],
)  # fmt: skip
def test_first_words(text, count, beginning):
    assert first_words(text, count) == beginning
