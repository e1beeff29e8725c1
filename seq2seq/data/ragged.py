"""Ragged arrays: sequences of different lengths in one flat array, in memory or in memory-mapped files."""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from seq2seq.errors import UserError

INT64 = np.dtype("<i8")
UINT8 = np.dtype(np.uint8)

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


class DamagedStoreError(Exception):
    """The files are not a complete token store of this format; it has to be rebuilt."""


@dataclass(frozen=True)
class RaggedArray:
    """Sequences in memory.

    Attributes:
        values: [sum of lengths] the items of all sequences, concatenated.
        lengths: int64 [B] number of items per sequence.
    """

    values: Array
    lengths: IntArray

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: np.dtype[Any]) -> "RaggedArray":
        """Builds it from lists of ids, stored as `dtype`."""
        lengths = np.fromiter(map(len, rows), dtype=INT64, count=len(rows))
        values = np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype, count=int(lengths.sum()))
        return cls(values, lengths)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "RaggedArray":
        """Builds it from the UTF-8 bytes of texts."""
        encoded = [text.encode("utf-8") for text in texts]
        lengths = np.fromiter(map(len, encoded), dtype=INT64, count=len(encoded))
        return cls(np.frombuffer(b"".join(encoded), dtype=UINT8), lengths)

    def select(self, mask: npt.NDArray[np.bool_]) -> "RaggedArray":
        """Returns the sequences where `mask` [B] is true."""
        return RaggedArray(self.values[np.repeat(mask, self.lengths)], self.lengths[mask])

    def truncate(self, max_length: int) -> "RaggedArray":
        """Returns the sequences, each cut to its first `max_length` items."""
        starts = np.cumsum(self.lengths) - self.lengths
        positions = np.arange(len(self.values)) - np.repeat(starts, self.lengths)  # within its sequence
        return RaggedArray(self.values[positions < max_length], np.minimum(self.lengths, max_length))


class MappedRaggedArray:
    """Sequences in a pair of memory-mapped files; safe to read from several threads.

    Args:
        values: [total] the items of all sequences, concatenated.
        offsets: int64 [N] offset in `values` at which each sequence ends.
    """

    def __init__(self, values: Array, offsets: IntArray):
        self._values = values
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Array:
        """Returns the sequence at an index, 0 to N-1 (a read-only view)."""
        start = self._offsets[index - 1] if index else 0
        return self._values[start : self._offsets[index]]

    def text(self, index: int) -> str:
        """Decodes the sequence at an index as UTF-8.

        Raises:
            DamagedStoreError: The bytes are not UTF-8.
        """
        try:
            return self[index].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedStoreError(f"text {index} of a token store is damaged: {error}") from None

    def lengths(self) -> IntArray:
        """Returns the number of items per sequence, int64 [N]."""
        return np.diff(self._offsets, prepend=0)

    def gather(self, indices: IntArray) -> RaggedArray:
        """Returns the sequences at `indices` [B]."""
        starts = np.where(indices > 0, self._offsets[indices - 1], 0)  # index 0 reads the last offset, and discards it
        lengths = self._offsets[indices] - starts
        shifts = starts - (np.cumsum(lengths) - lengths)  # from a sequence's place in the result to that in the file
        return RaggedArray(self._values[np.repeat(shifts, lengths) + np.arange(lengths.sum())], lengths)


class RaggedWriter:
    """Appends sequences to the file `<name>` and their end offsets to `<name>.ends`."""

    def __init__(self, folder: Path, name: str):
        self._values = ArrayWriter(folder / name)
        self._offsets = ArrayWriter(folder / f"{name}.ends")
        self._total = 0

    def append(self, sequences: RaggedArray) -> None:
        """Appends sequences."""
        offsets = self._total + np.cumsum(sequences.lengths)
        self._total += int(sequences.lengths.sum())
        self._values.append(sequences.values)
        self._offsets.append(offsets)

    def close(self) -> None:
        """Flushes both files to disk and closes them."""
        self._values.close()
        self._offsets.close()


class ArrayWriter:
    """Appends arrays to a file."""

    def __init__(self, path: Path):
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - open between calls, closed by close()

    def append(self, values: Array) -> None:
        """Appends an array."""
        self._file.write(np.ascontiguousarray(values).data)

    def close(self) -> None:
        """Flushes the file to disk and closes it; a second call does nothing."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def open_array(path: Path, dtype: np.dtype[Any]) -> Array:
    """Maps a file as a read-only array, without reading it yet."""
    try:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=dtype)
        # A plain view: indexing an np.memmap creates a new np.memmap each time, which is several times slower.
        return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    except FileNotFoundError as error:
        raise DamagedStoreError(f"{path} is missing") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_ragged(folder: Path, name: str, dtype: np.dtype[Any], count: int) -> MappedRaggedArray:
    """Opens the ragged array that a `RaggedWriter` of that name wrote.

    Raises:
        DamagedStoreError: It does not hold `count` sequences.
    """
    offsets = open_array(folder / f"{name}.ends", INT64)
    values = open_array(folder / name, dtype)
    if len(offsets) != count or (count and int(offsets[-1]) != len(values)) or not is_nondecreasing(offsets):
        raise DamagedStoreError(f"{folder / name} does not hold {count:,} sequences")
    return MappedRaggedArray(values, offsets)


def is_nondecreasing(offsets: IntArray) -> bool:
    """Whether each offset is at least the one before it, and the first at least 0."""
    return not len(offsets) or bool(offsets[0] >= 0 and np.all(offsets[1:] >= offsets[:-1]))
