"""Where two files that should be aligned stop being so: the words behind a refused corpus."""

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from seq2seq.data.text import read_lines

# What other programs take for a line end and we do not; names for messages.
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
_MAX_GAP = 1000  # lines: beyond this the files differ by more than lost or added lines
_MIN_EVIDENCE = 8.0  # nats of length mismatch that the best place must save, against chance


def describe_mismatch(files: dict[str, Path], counts: list[int], *, errors: str) -> str:
    """The message for files of different numbers of lines: both counts, and the first odd place if it shows.

    Args:
        files: source and target file by config key.
        counts: their numbers of lines.
        errors: see `seq2seq.data.text.ENCODING_ERRORS`.
    """
    (source_key, source), (target_key, target) = files.items()
    return (
        f"{source_key}={source} has {counts[0]:,} lines, {target_key}={target} has {counts[1]:,}: "
        f"a parallel corpus needs as many.{_odd_place(source, target, counts, errors=errors)}"
    )


def _odd_place(source: Path, target: Path, counts: list[int], *, errors: str) -> str:
    shorter, longer = (source, target) if counts[0] < counts[1] else (target, source)
    if min(counts) == 0:
        return f" {shorter.name} is empty."
    for number, line in enumerate(read_lines(shorter, errors=errors), start=1):
        for char in set(line) & _LINE_END_LIKE.keys():
            return (
                f" {shorter}:{number} holds {_LINE_END_LIKE[char]}, which some programs take for a line end; "
                r"here only \n ends a line."
            )
    gap = abs(counts[0] - counts[1])
    place = first_odd_line(_lengths(shorter, errors), _lengths(longer, errors), gap) if gap <= _MAX_GAP else None
    if place is not None:
        lines = f"line {place}" if gap == 1 else f"{gap} lines from line {place} on"
        return f" Going by the lengths of the lines, {lines} of {longer.name} may have no counterpart."
    pairs = zip(_lengths(source, errors), _lengths(target, errors), strict=False)
    for number, (left, right) in enumerate(pairs, start=1):
        if (left == 0) != (right == 0):
            return f" The first line that is empty on one side only is line {number}."
    return ""


def _lengths(path: Path, errors: str) -> Iterator[int]:
    return (len(line.strip()) for line in read_lines(path, errors=errors))


def first_odd_line(shorter: Iterator[int], longer: Iterator[int], gap: int) -> int | None:
    """The line (from 1) of the longer file at which `gap` lines without counterpart most likely start.

    Up to the place the files are paired line by line, behind it with an offset of `gap` lines. The place is
    the one with the smallest sum of |log length ratios|, a plain stand-in for the length model of Gale and
    Church (1993), section 3. One pass, memory for `gap` lengths.

    Args:
        shorter: lengths of the lines of the file with fewer lines, in characters.
        longer: lengths of the lines of the other.
        gap: by how many lines they differ, at least 1.

    Returns:
        the line, or None if no place is clearly better than the end of the file.
    """
    window = deque(islice(longer, gap), maxlen=gap + 1)
    saved = best = 0.0  # cost of pairing the lines so far without the offset minus with it
    place = 1
    for number, (length, ahead) in enumerate(zip(shorter, longer, strict=False), start=1):
        window.append(ahead)
        saved += _cost(length, window[0]) - _cost(length, ahead)
        if saved < best:
            best, place = saved, number + 1
    return place if saved - best > _MIN_EVIDENCE else None


def _cost(left: int, right: int) -> float:
    return abs(math.log((left + 1) / (right + 1)))
