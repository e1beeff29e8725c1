"""Ragged arrays: sequences of different lengths in one flat array, in memory or in memory-mapped files."""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Sequences in memory or in memory-mapped files; safe to read from several threads.

    Attributes:
        values: [total] the items of all sequences, concatenated.
        offsets: int64 [N+1] where each sequence starts in `values`, and where the last one ends.
    """

    values: Array
    offsets: IntArray

    @classmethod
    def from_lengths(cls, values: Array, lengths: IntArray) -> "RaggedArray":
        """Builds it from concatenated items and the number of items per sequence, int64 [N]."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: np.dtype[Any]) -> "RaggedArray":
        """Builds it from lists of ids, stored as `dtype`."""
        lengths = np.fromiter(map(len, rows), dtype=INT64, count=len(rows))
        values = np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype, count=int(lengths.sum()))
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "RaggedArray":
        """Builds it from the UTF-8 bytes of texts."""
        encoded = [text.encode("utf-8") for text in texts]
        lengths = np.fromiter(map(len, encoded), dtype=INT64, count=len(encoded))
        return cls.from_lengths(np.frombuffer(b"".join(encoded), dtype=UINT8), lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Array:
        """Returns the sequence at an index, 0 to N-1 (a view; read-only if it is mapped)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def text(self, index: int) -> str:
        """Decodes the sequence at an index as UTF-8.

        Raises:
            DamagedStoreError: The bytes are not UTF-8.
        """
        try:
            return self[index].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedStoreError(f"text {index} of a token store is damaged: {error}") from None

    @property
    def lengths(self) -> IntArray:
        """The number of items per sequence, int64 [N]."""
        return np.diff(self.offsets)

    def gather(self, indices: IntArray) -> "RaggedArray":
        """Returns copies of the sequences at `indices` [B]."""
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        shifts = starts - (np.cumsum(lengths) - lengths)  # from a sequence's place in the result to that in `values`
        return RaggedArray.from_lengths(self.values[np.repeat(shifts, lengths) + np.arange(lengths.sum())], lengths)

    def truncate(self, max_length: int) -> "RaggedArray":
        """Returns the sequences, each cut to its first `max_length` items."""
        positions = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)  # within its sequence
        return RaggedArray.from_lengths(self.values[positions < max_length], np.minimum(self.lengths, max_length))


class RaggedWriter:
    """Appends sequences to the file `<name>` and their offsets to `<name>.offsets`."""

    def __init__(self, folder: Path, name: str):
        self._values = open(folder / name, "wb")  # noqa: SIM115 - open between calls, closed by close()
        self._offsets = open(folder / f"{name}.offsets", "wb")  # noqa: SIM115
        self._offsets.write(np.zeros(1, INT64).data)
        self._total = 0

    def append(self, sequences: RaggedArray) -> None:
        """Appends sequences."""
        self._values.write(np.ascontiguousarray(sequences.values).data)
        self._offsets.write((self._total + sequences.offsets[1:]).data)
        self._total += len(sequences.values)

    def close(self) -> None:
        """Flushes both files to disk and closes them; a second call does nothing."""
        for file in (self._values, self._offsets):
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
                file.close()


def open_ragged(folder: Path, name: str, dtype: np.dtype[Any], count: int) -> RaggedArray:
    """Maps the files that a `RaggedWriter` of that name wrote.

    Raises:
        DamagedStoreError: They do not hold `count` sequences.
        UserError: They cannot be read.
    """
    offsets = _open_array(folder / f"{name}.offsets", INT64)
    values = _open_array(folder / name, dtype)
    if not (
        len(offsets) == count + 1
        and offsets[0] == 0
        and offsets[-1] == len(values)
        and np.all(offsets[1:] >= offsets[:-1])
    ):
        raise DamagedStoreError(f"{folder / name} does not hold {count:,} sequences")
    return RaggedArray(values, offsets)


def _open_array(path: Path, dtype: np.dtype[Any]) -> Array:
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
