"""Sequences of different lengths, one behind the other: in memory, and as files that open by mapping."""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from seq2seq.errors import UserError

INDEX = np.dtype("<i8")
BYTES = np.dtype(np.uint8)

Values = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


class DamagedStoreError(Exception):
    """Files that are no complete token store of this format; it has to be built again."""


@dataclass(frozen=True)
class Sequences:
    """Some sequences.

    Attributes:
        values: [sum of lengths] their items, one behind the other.
        lengths: int64 [B] number of items of each.
    """

    values: Values
    lengths: Index

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: np.dtype[Any]) -> "Sequences":
        """The given ids in a compact type that holds them."""
        lengths = np.fromiter(map(len, rows), dtype=INDEX, count=len(rows))
        values = np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype, count=int(lengths.sum()))
        return cls(values, lengths)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "Sequences":
        """The UTF-8 bytes of the given texts."""
        encoded = [text.encode("utf-8") for text in texts]
        lengths = np.fromiter(map(len, encoded), dtype=INDEX, count=len(encoded))
        return cls(np.frombuffer(b"".join(encoded), dtype=BYTES), lengths)

    def select(self, keep: npt.NDArray[np.bool_]) -> "Sequences":
        """The sequences where `keep` [B] is true."""
        return Sequences(self.values[np.repeat(keep, self.lengths)], self.lengths[keep])

    def cut(self, limit: int) -> "Sequences":
        """The sequences, each cut after `limit` items."""
        starts = np.cumsum(self.lengths) - self.lengths
        places = np.arange(len(self.values)) - np.repeat(starts, self.lengths)
        return Sequences(self.values[places < limit], np.minimum(self.lengths, limit))


class Column:
    """Sequences in a pair of mapped files; reading needs no lock.

    Args:
        values: [total] the items of all sequences.
        ends: int64 [N] where each sequence ends in `values`.
    """

    def __init__(self, values: Values, ends: Index):
        self._values = values
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> Values:
        """The sequence of that number, 0 to N-1 (a read-only view)."""
        start = self._ends[number - 1] if number else 0
        return self._values[start : self._ends[number]]

    def text(self, number: int) -> str:
        """The sequence as text.

        Raises:
            DamagedStoreError: it is none.
        """
        try:
            return self[number].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedStoreError(f"text {number} of a token store is damaged: {error}") from None

    def lengths(self) -> Index:
        """int64 [N] number of items of each sequence."""
        return np.diff(self._ends, prepend=0)

    def gather(self, numbers: Index, limit: int) -> Sequences:
        """The sequences of the given numbers [B], each cut after `limit` items."""
        starts = np.where(numbers > 0, self._ends[numbers - 1], 0)
        lengths = np.minimum(self._ends[numbers] - starts, limit)
        shifts = starts - (np.cumsum(lengths) - lengths)
        return Sequences(self._values[np.repeat(shifts, lengths) + np.arange(lengths.sum())], lengths)


class ColumnWriter:
    """Appends sequences to `<name>` and the places where they end to `<name>.ends`."""

    def __init__(self, folder: Path, name: str):
        self._values = ArrayWriter(folder / name)
        self._ends = ArrayWriter(folder / f"{name}.ends")
        self._total = 0

    def add(self, sequences: Sequences) -> None:
        """Appends."""
        ends = self._total + np.cumsum(sequences.lengths)
        self._total += int(sequences.lengths.sum())
        self._values.add(sequences.values)
        self._ends.add(ends)

    def close(self) -> None:
        """Puts both files on the disk."""
        self._values.close()
        self._ends.close()


class ArrayWriter:
    """Appends arrays to a file."""

    def __init__(self, path: Path):
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - open between calls, closed by close()

    def add(self, values: Values) -> None:
        """Appends."""
        self._file.write(np.ascontiguousarray(values).data)

    def close(self) -> None:
        """Puts the file on the disk; a second call does nothing."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def open_array(path: Path, dtype: np.dtype[Any]) -> Values:
    """A file as a read-only array; nothing is read yet."""
    try:
        if path.stat().st_size == 0:  # there is nothing to map
            return np.zeros(0, dtype=dtype)
        # A plain view: indexing a np.memmap makes a new np.memmap each time, which is several times slower.
        return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    except FileNotFoundError as error:
        raise DamagedStoreError(f"{path} is missing") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_column(folder: Path, name: str, dtype: np.dtype[Any], count: int) -> Column:
    """The column that a `ColumnWriter` of that name wrote.

    Raises:
        DamagedStoreError: it does not hold `count` sequences.
    """
    ends = open_array(folder / f"{name}.ends", INDEX)
    values = open_array(folder / name, dtype)
    if len(ends) != count or (count and int(ends[-1]) != len(values)) or not is_rising(ends):
        raise DamagedStoreError(f"{folder / name} does not hold {count:,} sequences")
    return Column(values, ends)


def is_rising(ends: Index) -> bool:
    """Whether no number is below the one before it, and none below zero."""
    return not len(ends) or bool(ends[0] >= 0 and np.all(ends[1:] >= ends[:-1]))
