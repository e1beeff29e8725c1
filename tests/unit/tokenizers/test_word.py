from __future__ import annotations

from pathlib import Path

import pytest

from seq2seq.errors import UserError
from seq2seq.tokenizers.base import SPECIAL_TOKENS
from seq2seq.tokenizers.word import parse_vocabulary

HEAD = "".join(f"{token}\n" for token in SPECIAL_TOKENS)


def test_a_vocabulary_is_special_tokens_and_words() -> None:
    assert parse_vocabulary(f"{HEAD}ein\nWort\n".encode(), Path("v")) == ["ein", "Wort"]


@pytest.mark.parametrize("text", ["ein\nWort\n", f"{HEAD}ein\nein\n", f"ein\n{HEAD}", f"{HEAD}</s>\n"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="v is not a vocabulary"):
        parse_vocabulary(text.encode(), Path("v"))
