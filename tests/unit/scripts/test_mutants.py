"""Which changes are drawn, that each changes what it says, and what is made of the tests' answers."""

from pathlib import Path

import mutate
import pytest
from mutants import Mutant, compiles, mutants_of
from mutate import LineCoverage, Outcome

SOURCE = '''"""Doc 1."""
from seq2seq import thing
def f(a: int | None = 3, *, b: float = 0.5) -> int | None:
    # ä: places are counted in bytes
    "ü"; thing.call(a, b, indent=1)
    if a is not None and a < (b):
        return -a * 2
    assert a != b
    zip(a, min(a, b), strict=True)
    return g(a, key=not b, other=f"{a + 1}") + [x for x in a if x == 1]
'''
EXPECTED = {
    ("constant", "3", "4"), ("constant", "0.5", "1.0"), ("call removed", "thing.call(a, b, indent=1)", "pass"),
    ("arguments swapped", "a, b", "b, a"), ("comparison", "is not", "is"), ("logic", "and", "or"),
    ("comparison", "<", "<="), ("condition negated", "a is not None and a < (b)", "(not (a is not None and a < (b)))"),
    ("operator removed", "-a", "a"), ("arithmetic", "*", "/"), ("constant", "2", "3"),
    ("keyword removed", "key=not b, ", ""), ("keyword removed", ', other=f"{a + 1}"', ""),
    ("operator removed", "not b", "b"), ("arithmetic", "+", "-"), ("comparison", "==", "!="),
    ("condition negated", "x == 1", "(not (x == 1))"), ("constant", "1", "2"),
    ("call removed", "zip(a, min(a, b), strict=True)", "pass"), ("arguments swapped", "a, min(a, b)", "min(a, b), a"),
}  # fmt: skip


@pytest.fixture
def found(tmp_path: Path) -> list[Mutant]:
    (tmp_path / "module.py").write_text(SOURCE, encoding="utf-8")
    return mutants_of(tmp_path, tmp_path / "module.py")


def test_every_kind_of_change_is_found_and_nothing_else(found: list[Mutant]) -> None:
    """Neither annotations nor strings change, and nothing within an f-string."""
    assert {(each.kind, each.before, each.after) for each in found} == EXPECTED


def test_a_mutant_differs_from_its_source_in_one_line_as_it_says(found: list[Mutant]) -> None:
    lines = SOURCE.split("\n")
    for mutant in found:
        changed = mutant.apply(SOURCE.encode()).decode().split("\n")
        at = [number for number, (old, new) in enumerate(zip(lines, changed, strict=True), 1) if old != new]
        assert at == [mutant.line], mutant
        assert mutant.after in changed[mutant.line - 1]


def test_a_changed_file_is_noticed(found: list[Mutant]) -> None:
    with pytest.raises(AssertionError):
        found[3].apply(b"# one line more\n" + SOURCE.encode())


def test_a_seed_draws_the_same_mutants_again() -> None:
    first, again, other = (mutate.draw(["seq2seq/search"], seed=seed, count=20) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 20
    assert all(each.path.startswith("seq2seq/search/") for each in first)


def test_what_is_no_python_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text("x = f(a=1 if b else 2)\n", encoding="utf-8")
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    kinds = {each.kind for each in mutate.draw(["module.py"], seed=1, count=99)}
    assert kinds == {"constant", "condition negated", "keyword removed"}
    broken = Mutant("module.py", 1, "constant", "f(", "f", 4)
    assert not compiles(broken, tmp_path)


def test_each_path_of_the_scope_holds_something() -> None:
    for path in mutate.SCOPE:
        assert mutate.draw([path], seed=1, count=1), path


RUN, DEFAULTS = "tests/integration/test_run.py", "tests/configs/test_ranges.py"


def line_coverage() -> LineCoverage:
    lines = {1: ["broad", "narrow"], 2: ["broad", DEFAULTS], 3: [RUN, "broad", DEFAULTS], 5: ["broad", DEFAULTS]}
    return LineCoverage({"a.py": lines}, {"a.py": [5]}, {"broad": 0.1, "narrow": 9.0, RUN: 0.1, DEFAULTS: 0.1})


@pytest.mark.parametrize(
    ("line", "budget", "expected"),
    [(1, 60.0, ["narrow", "broad"]), (1, 5.0, ["narrow"]), (2, 60.0, [DEFAULTS, "broad"]),
     (3, 60.0, [DEFAULTS, "broad", RUN]), (4, 60.0, []), (5, 60.0, [DEFAULTS, "narrow", "broad", RUN])],
    ids=["narrowest first", "within the budget", "another line", "runs last", "no test", "a line that runs at import"],
)  # fmt: skip
def test_the_tests_of_a_line(line: int, budget: float, expected: list[str]) -> None:
    mutant = Mutant("a.py", line, "constant", "1", "2", 0)
    assert line_coverage().tests(mutant, budget=budget) == expected


def test_the_table_counts_by_folder() -> None:
    mutants = [Mutant(path, 1, "constant", "1", "2", 0) for path in ("p/a.py", "p/b.py", "p/q/c.py", "p/q/d.py")]
    statuses = ["killed", "timeout", "survived", "killed"]
    text = mutate.summary(zip(mutants, (Outcome(s, "", 1, 0.1) for s in statuses), strict=True))
    assert "| p | 2 | 2 | 1 | 0 | 100.0 |" in text
    assert "| p/q | 2 | 1 | 0 | 1 | 50.0 |" in text
    assert "| all | 4 | 3 | 1 | 1 | 75.0 |" in text
    assert text.count("constant: 1 -> 2") == 2, "what survived, and what ran out of time"
