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

_MAX_LINE_BYTES = 1 << 20  # far more than a word and 10,000 numbers need: a longer "line" is not text
_MAX_DIGITS = 18
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def load_vectors(path: Path, tokens: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Loads the vectors of the tokens from a text file with one word and its numbers, separated by spaces, per line.

    A first line of two integers (count and dimension, as written by fastText and word2vec) is a header, and the
    file must then have that many vectors. If a word occurs twice, the first line is used. Words that contain
    spaces or invalid UTF-8 match no token. Only the vectors of the tokens are kept in memory. Nothing is
    downloaded, unpickled or cached. `.gz` files are decompressed on the fly.

    Args:
        path: The file.
        tokens: The vocabulary in the order of its ids.

    Returns:
        The vectors, float32 `[V, dimension]`, zero for tokens that are not in the file; and a mask of the tokens
        that are, bool `[V]`.

    Raises:
        UserError: The file is unreadable, empty, truncated or binary, or a line has the wrong number of values or a
            value that is not a finite number; the message names file and line.
    """
    lines = _read_lines(path)
    line_number, first = next(lines, (0, b""))
    if line_number == 0:
        raise UserError(f"{path} is empty: it has no word vectors.")
    header = _parse_header(first, f"{path}:1")
    if header is None:
        count, dimension = None, len(first.split(b" ")) - 1
        lines = itertools.chain([(line_number, first)], lines)
    else:
        count, dimension = header
    if dimension < 1:
        raise UserError(f"{path}:1: {_quote(first)} is not a word followed by its numbers.")

    ids = {token.encode("utf-8", "surrogatepass"): token_id for token_id, token in enumerate(tokens)}
    rows: dict[int, npt.NDArray[np.float32]] = {}
    num_vectors = 0
    for line_number, line in lines:
        num_vectors += 1
        word = _parse_word(line, dimension, f"{path}:{line_number}")
        token_id = ids.get(word)
        if token_id is not None and token_id not in rows:
            rows[token_id] = np.array(_parse_values(line, dimension, f"{path}:{line_number}"), dtype=np.float32)
    if count is not None and num_vectors != count:
        raise UserError(f"{path}:1 announces {count} vectors, but {num_vectors} follow; download the file again.")
    if not num_vectors:
        raise UserError(f"{path} is empty: it has no word vectors.")
    return _matrix(rows, (len(tokens), dimension))


def _matrix(
    rows: dict[int, npt.NDArray[np.float32]], shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Fills the matrix; called after reading, so that a false dimension in a header cannot exhaust memory."""
    vectors = np.zeros(shape, dtype=np.float32)
    found = np.zeros(shape[0], dtype=np.bool_)
    for row, vector in rows.items():
        vectors[row] = vector
        found[row] = True
    return vectors, found


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields line numbers from 1 and stripped lines; splits at line feeds only, as words may contain U+0085."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for line_number in itertools.count(1):
                line = stream.readline(_MAX_LINE_BYTES)
                if not line:
                    return
                if len(line) == _MAX_LINE_BYTES or b"\0" in line:
                    raise UserError(f"{path}:{line_number} is not text; word vectors are read from text files only.")
                yield line_number, line.rstrip(b"\r\n ")  # fastText ends its lines with a space
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the word vectors cannot be read ({error}).") from None


def _parse_header(line: bytes, location: str) -> tuple[int, int] | None:
    fields = line.split(b" ")
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    if max(map(len, fields)) > _MAX_DIGITS:
        raise UserError(f"{location}: {_quote(line)} is not a valid number of vectors and dimension.")
    return int(fields[0]), int(fields[1])


def _parse_word(line: bytes, dimension: int, location: str) -> bytes:
    spaces = line.count(b" ")
    if spaces == dimension:
        return line[: line.index(b" ")]
    if spaces > dimension:
        word = line.rsplit(b" ", dimension)[0]
        _parse_values(line, dimension, location)  # words with spaces exist (GloVe 840B): check that the rest is numbers
        return word
    raise UserError(
        f"{location} has {spaces} numbers after the word, but the dimension is {dimension}: {_quote(line)}."
    )


def _parse_values(line: bytes, dimension: int, location: str) -> list[float]:
    fields = line.rsplit(b" ", dimension)[1:]
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise UserError(f"{location} does not end with {dimension} numbers: {_quote(line)}.") from None
    if not all(abs(value) <= _MAX_FLOAT32 for value in values):
        raise UserError(f"{location} has a number that is not finite in float32: {_quote(line)}.")
    return values


def _quote(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))
