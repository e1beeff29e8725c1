import random
from pathlib import Path

import pytest

from seq2seq.data.alignment import describe_mismatch, find_unpaired_line


def corpus(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Lengths of aligned lines, correlated as those of translations are."""
    rng = random.Random(seed)
    source = [rng.randint(15, 150) for _ in range(count)]
    return source, [max(1, round(length * rng.gauss(1.1, 0.12))) for length in source]


@pytest.mark.parametrize("gap", [1, 3])
@pytest.mark.parametrize("line", [1, 200, 450])
def test_lost_lines_are_found_by_their_lengths(gap: int, line: int) -> None:
    source, target = corpus(500, seed=line)
    del source[line - 1 : line - 1 + gap]
    found = find_unpaired_line(iter(source), iter(target), gap)
    assert found is not None
    assert abs(found - line) <= 2


def test_nothing_is_claimed_without_evidence() -> None:
    """Evidence of 8 nats: pairing a line with the one before it costs log(1083 / 1000) = 0.0797 nats."""
    lines = [999, 1082] * 51
    for count, line in ((100, None), (101, 1)):  # 7.97 and 8.05 nats
        aligned = lines[:count]
        assert find_unpaired_line(iter(aligned), iter([1082, *aligned]), 1) == line
        assert find_unpaired_line(iter(aligned), iter([*aligned, 1082]), 1) is None, "the last line is the odd one"
    assert find_unpaired_line(iter([20] * 50), iter([20] * 51), 1) is None, "any of them may be"


def describe(folder: Path, source: list[str], target: list[str]) -> str:
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in source), newline="")
    (folder / "b.txt").write_text("".join(f"{line}\n" for line in target), newline="")
    files = {"data.valid.source": folder / "a.txt", "data.valid.target": folder / "b.txt"}
    return describe_mismatch(files, [len(source), len(target)], errors="strict")


def test_message_names_the_line(tmp_path: Path) -> None:
    source, target = ([length * "x" for length in side] for side in corpus(300, seed=5))
    del target[120]
    message = describe(tmp_path, source, target)
    assert "has 300 lines" in message
    assert "has 299" in message
    assert any(f", line {line} of a.txt may" in message for line in (119, 120, 121, 122, 123)), message
    del target[120]
    message = describe(tmp_path, source, target)
    assert any(f", 2 lines starting at line {line} of a.txt may" in message for line in (119, 120, 121, 122)), message


@pytest.mark.parametrize(("char", "name"), [("\r", "carriage return"), ("\u2028", "U\\+2028"), ("\x85", "U\\+0085")])
def test_what_looks_like_a_line_end_is_named(tmp_path: Path, char: str, name: str) -> None:
    message = describe(tmp_path, ["a", f"b{char}c"], ["a", "b", "c"])
    assert f"{tmp_path / 'a.txt'}:2 contains" in message
    assert name.replace("\\", "") in message


def test_one_sided_blank_line_is_named(tmp_path: Path) -> None:
    assert "empty on one side only is line 2" in describe(tmp_path, ["aa", "", "cc"], ["aa", "bb"])
    assert "empty on one side only is line 2" in describe(tmp_path, ["aa", "b", "cc"], ["aa", ""])
