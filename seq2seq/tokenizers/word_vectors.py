"""Reads pretrained word vectors from local text files (GloVe, fastText, word2vec's text format)."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seq2seq.errors import UserError

_MAX_LINE_BYTES = 1 << 20  # far more than a word and 10,000 numbers take: a longer "line" is not text
_MOST_DIGITS = 18
_LARGEST = float(np.finfo(np.float32).max)


def load_vectors(path: Path, tokens: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Vectors of the tokens from a text file that has a word and its numbers, split by spaces, on each line.

    A first line of two integers (count and dimension, as fastText and word2vec write them) is a header, and
    the file must then hold that many lines. Where a word has several lines, the first counts. Words that hold
    spaces themselves, or bytes that are not UTF-8, match no token. Only the wanted rows are kept in memory.
    Nothing is downloaded, unpickled or cached. `.gz` files are read as they are.

    Args:
        path: The file.
        tokens: The vocabulary in the order of its ids.

    Returns:
        The vectors, float32 `[V, dimension]`, zero where the file lacks the token; and whether it was found,
        bool `[V]`.

    Raises:
        UserError: Naming file and line: unreadable, empty, cut short, a binary file, a line with another
            number of numbers, a number that is none or not finite.
    """
    lines = _read_lines(path)
    number, first = next(lines, (0, b""))
    if number == 0:
        raise UserError(f"{path} is empty: it holds no word vectors.")
    header = _parse_header(first, f"{path}:1")
    if header is None:
        count, dimension = None, len(first.split(b" ")) - 1
        lines = itertools.chain([(number, first)], lines)
    else:
        count, dimension = header
    if dimension < 1:
        raise UserError(f"{path}:1: {_quote(first)} is not a word followed by its numbers.")

    wanted = {token.encode("utf-8", "surrogatepass"): row for row, token in enumerate(tokens)}
    rows: dict[int, npt.NDArray[np.float32]] = {}
    held = 0
    for number, line in lines:
        held += 1
        word = _word(line, dimension, f"{path}:{number}")
        row = wanted.get(word)
        if row is not None and row not in rows:
            rows[row] = np.array(_numbers(line, dimension, f"{path}:{number}"), dtype=np.float32)
    if count is not None and held != count:
        raise UserError(f"{path}:1 announces {count} vectors, but {held} follow; fetch the file again.")
    if not held:
        raise UserError(f"{path} is empty: it holds no word vectors.")
    return _matrix(rows, (len(tokens), dimension))


def _matrix(
    rows: dict[int, npt.NDArray[np.float32]], shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Takes memory only now: the dimension that a header announces is that of lines which were there."""
    vectors = np.zeros(shape, dtype=np.float32)
    found = np.zeros(shape[0], dtype=np.bool_)
    for row, vector in rows.items():
        vectors[row] = vector
        found[row] = True
    return vectors, found


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and lines without their ends: at line feeds only, as words may hold U+0085."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number in itertools.count(1):
                line = stream.readline(_MAX_LINE_BYTES)
                if not line:
                    return
                if len(line) == _MAX_LINE_BYTES or b"\0" in line:
                    raise UserError(f"{path}:{number} is not text; word vectors are read from text files only.")
                yield number, line.rstrip(b"\r\n ")  # fastText ends its lines in a space
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the word vectors cannot be read ({error}).") from None


def _parse_header(line: bytes, place: str) -> tuple[int, int] | None:
    fields = line.split(b" ")
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    if max(map(len, fields)) > _MOST_DIGITS:
        raise UserError(f"{place}: {_quote(line)} is no number of vectors and their dimension.")
    return int(fields[0]), int(fields[1])


def _word(line: bytes, dimension: int, place: str) -> bytes:
    spaces = line.count(b" ")
    if spaces == dimension:
        return line[: line.index(b" ")]
    if spaces > dimension:
        word = line.rsplit(b" ", dimension)[0]
        _numbers(line, dimension, place)  # a word with spaces, as GloVe 840B has: the rest must be numbers
        return word
    raise UserError(f"{place} has {spaces} numbers after the word, but the dimension is {dimension}: {_quote(line)}.")


def _numbers(line: bytes, dimension: int, place: str) -> list[float]:
    fields = line.rsplit(b" ", dimension)[1:]
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise UserError(f"{place} does not end in {dimension} numbers: {_quote(line)}.") from None
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise UserError(f"{place} holds a number that is not finite in 32 bits: {_quote(line)}.")
    return numbers


def _quote(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))
