"""The table of faults names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| (\d+) \| (.+?) \| (.+?) \| (.+) \|")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
FAULTS = 54


def rows() -> list[tuple[int, str]]:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.partition("## The faults")[2]
    return [(int(match[1]), match[4]) for match in map(ROW.fullmatch, table.splitlines()) if match]


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_faults_are_numbered() -> None:
    assert [number for number, _ in rows()] == list(range(1, FAULTS + 1))


@pytest.mark.parametrize(("number", "cell"), rows())
def test_each_fault_has_tests_that_exist(number: int, cell: str) -> None:
    named = TEST.findall(cell)
    assert named, f"fault {number} names no test"
    for path, function in named:
        assert function in functions(path), f"fault {number}: {path} has no {function}"
    assert len(named) == cell.count("::"), f"fault {number}: a name that is not written as `tests/FILE.py::test_NAME`"
