"""Which test fails when a key is ignored: a row for each key, checked for completeness against the dataclasses."""

import ast
from pathlib import Path

import pytest

from seq2seq.config import known_keys

SECTIONS = ("trainer", "optim", "model", "search", "tokenizer", "data", "metrics")
ROOT = Path(__file__).resolve().parents[2]

# Key to test, by section: `FILE::NAME`, the file below tests/.
TRAINER: dict[str, str] = {}
OPTIM: dict[str, str] = {}
MODEL: dict[str, str] = {}
SEARCH: dict[str, str] = {}
TOKENIZER: dict[str, str] = {}
DATA: dict[str, str] = {}
METRICS: dict[str, str] = {}
TESTS = TRAINER | OPTIM | MODEL | SEARCH | TOKENIZER | DATA | METRICS

# Keys that change what is shown and nothing else, with the reason why no test asks what a user gets from them.
DISPLAY: dict[str, str] = {}


def keys() -> list[str]:
    """All keys of the sections, without the sections themselves."""
    known = known_keys()
    return [
        key
        for key in known
        if key.split(".")[0] in SECTIONS and "." in key and not any(other.startswith(f"{key}.") for other in known)
    ]


def test_every_key_has_a_test() -> None:
    assert sorted(TESTS | DISPLAY) == keys()
    assert not TESTS.keys() & DISPLAY.keys()


@pytest.mark.parametrize("test", sorted(set(TESTS.values())))
def test_the_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
