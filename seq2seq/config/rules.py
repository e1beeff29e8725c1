"""Rules for the values of any key. Keys are full keys, values plain."""

from collections.abc import Mapping
from typing import Any

from seq2seq.errors import UserError

MAX_INTEGER = 2**31 - 1  # limit of any count, size or number of steps; seeds may be larger
_SEEDS = ("seed", "search.seed")  # checked by their own sections


def check_values(values: Mapping[str, Any]) -> None:
    """Checks rules that hold for every key: no empty text, no text that a path cannot hold, no huge integer.

    Raises:
        UserError: If a value breaks a rule; names the key and the value.
    """
    for key, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                _check_text(key, item)
            elif isinstance(item, int) and abs(item) > MAX_INTEGER and key not in _SEEDS:
                raise UserError(f"{key}={item}: whole numbers are at most {MAX_INTEGER:,}")


def _check_text(key: str, text: str) -> None:
    if not text:
        raise UserError(f"{key}= is empty: give it a value, or leave it out")
    if "\0" in text:
        raise UserError(f"{key}={text!r}: holds a NUL character, which no name or path can contain")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{key}={text!r}: is not UTF-8; rename the file or folder that it names") from None
