"""Locates where two files that should be aligned line by line diverge, for the message that rejects the corpus."""

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from seq2seq.data.text import read_lines

# Characters that other programs treat as line ends and this package does not, with names for messages.
_LINE_END_LIKE = {
    "\r": "a lone carriage return",
    "\v": "a vertical tab",
    "\f": "a form feed",
    "\x1c": "U+001C",
    "\x1d": "U+001D",
    "\x1e": "U+001E",
    "\x85": "U+0085",
    "\u2028": "U+2028",
    "\u2029": "U+2029",
}
_MAX_GAP = 1000  # lines; a larger difference is not explained by lost or added lines
_MIN_COST_REDUCTION = 8.0  # sum of |log length ratio| that the best split must save; less may be chance


def describe_mismatch(files: dict[str, Path], counts: list[int], *, errors: str) -> str:
    """Returns the message for files with different numbers of lines, with the first mismatch if it can be located.

    Args:
        files: source and target file by config key.
        counts: their numbers of lines.
        errors: see `seq2seq.data.text.ENCODING_ERRORS`.
    """
    (source_key, source), (target_key, target) = files.items()
    return (
        f"{source_key}={source} has {counts[0]:,} lines, {target_key}={target} has {counts[1]:,}: "
        f"a parallel corpus needs the same number in both.{_locate_mismatch(source, target, counts, errors=errors)}"
    )


def _locate_mismatch(source: Path, target: Path, counts: list[int], *, errors: str) -> str:
    shorter, longer = (source, target) if counts[0] < counts[1] else (target, source)
    if min(counts) == 0:
        return f" {shorter.name} is empty."
    for line_number, line in enumerate(read_lines(shorter, errors=errors), start=1):
        for char in set(line) & _LINE_END_LIKE.keys():
            return (
                f" {shorter}:{line_number} contains {_LINE_END_LIKE[char]}, which some programs treat as a line end; "
                r"here only \n ends a line."
            )
    gap = abs(counts[0] - counts[1])
    found = find_unpaired_line(_lengths(shorter, errors), _lengths(longer, errors), gap) if gap <= _MAX_GAP else None
    if found is not None:
        lines = f"line {found}" if gap == 1 else f"{gap} lines starting at line {found}"
        return f" Judging by the line lengths, {lines} of {longer.name} may have no counterpart."
    pairs = zip(_lengths(source, errors), _lengths(target, errors), strict=False)
    for line_number, (left, right) in enumerate(pairs, start=1):
        if (left == 0) != (right == 0):
            return f" The first line that is empty on one side only is line {line_number}."
    return ""


def _lengths(path: Path, errors: str) -> Iterator[int]:
    return (len(line.strip()) for line in read_lines(path, errors=errors))


def find_unpaired_line(shorter: Iterator[int], longer: Iterator[int], gap: int) -> int | None:
    """Finds the line of the longer file, from 1, at which `gap` lines without counterpart most likely start.

    Lines before it are paired one to one, lines after it with an offset of `gap` lines. Minimizes the sum of
    |log length ratio| over the pairs, a simplification of the length model of Gale and Church (1993), section 3.
    One pass over the files; memory for `gap` lengths.

    Args:
        shorter: line lengths of the file with fewer lines, in characters.
        longer: line lengths of the other file.
        gap: difference in the number of lines, at least 1.

    Returns:
        The line number, or None if no line is clearly better than the end of the file.
    """
    window = deque(islice(longer, gap), maxlen=gap + 1)  # of the longer file: window[0] is the line without the offset
    difference = lowest = 0.0  # cost of pairing the lines so far without the offset, minus the cost with it
    best = 1
    for line_number, (length, offset_length) in enumerate(zip(shorter, longer, strict=False), start=1):
        window.append(offset_length)
        difference += _cost(length, window[0]) - _cost(length, offset_length)
        if difference < lowest:
            lowest, best = difference, line_number + 1
    return best if difference - lowest > _MIN_COST_REDUCTION else None


def _cost(left: int, right: int) -> float:
    return abs(math.log((left + 1) / (right + 1)))
