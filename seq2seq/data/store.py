"""The token store: one split of a corpus on disk, encoded, opened as memory-mapped arrays in milliseconds.

A store is a folder. Ids and texts of all examples lie one behind the other in a file each, with an array of
the places where they end beside it, so that opening costs about the same for ten examples as for ten
millions, and reading needs no lock. ``meta.json`` is written last: a folder without it is no store. Whoever opens a
store that was made earlier asks `is_store` first, which reads it once and compares hashes; a large one may be read
by `verify` beside the work that it is opened for. Integers are little-endian.

=====================  ===================================================================================
file                   content
=====================  ===================================================================================
``meta.json``          format version, number of examples, limits, report, size and sha256 of each other file,
                       and the sha256 of all that
``source.ids``         uint16 (vocabularies up to 65,536) or uint32; neither BOS nor EOS; cut to the limits
``source.ids.ends``    int64 [N], where each example's ids end; so for every column
``source.text``        UTF-8, whole; likewise ``target.ids`` and ``target.text``
``references.text``    further references of all examples, an entry a reference
``references.counts``  int64 [N], number of further references up to and with each example
``positions``          int64 [N], number of the example in its corpus, from 0
=====================  ===================================================================================
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import Example
from seq2seq.data.ragged import (
    BYTES,
    INDEX,
    ArrayWriter,
    ColumnWriter,
    DamagedStoreError,
    Index,
    Sequences,
    Values,
    is_rising,
    open_array,
    open_column,
)
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.errors import TrainingError
from seq2seq.system.atomic_folder import build_once
from seq2seq.tokenizers.pair import Tokenizers

FORMAT_VERSION = 3
_META = "meta.json"
_SAMPLING_CHUNK = 8192  # examples sampled under one seed: a part of what (seed, epoch) means
_EPOCHS_KEPT = 8  # of resampled ids; ranks are a few steps apart, but a step may be an epoch


@dataclass(frozen=True)
class Limits:
    """Most tokens of a source and of a target, end of sentence counted."""

    source: int
    target: int


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type that ids are stored in: 2 bytes if they fit."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class TokenStore:
    """The examples of one split by number, 0 to N-1. Safe to read from several threads.

    Attributes:
        folder: where it is.
        bytes: of all its files.
        limits: what the ids were cut to.
        report: what was read, dropped and kept.
        source_ids: ids of the sources, without EOS.
        target_ids: ids of the targets, without BOS and EOS.
        source_lengths: int32 [N], tokens of each source with EOS.
        target_lengths: int32 [N], tokens of each target with EOS.
    """

    READ_AT_ONCE = 2**26  # bytes of a store that are verified before it is opened: some 0.05 s

    def __init__(self, folder: Path, *, ids_folder: Path | None = None):
        """Opens a store.

        Args:
            folder: the store.
            ids_folder: where the ids are, if they are not its own (see `resampled`).

        Raises:
            DamagedStoreError: it is not complete, or of another format version.
        """
        meta = read_meta(folder)
        ids_meta = read_meta(ids_folder) if ids_folder else meta
        where = ids_folder or folder
        count = int(meta["count"])
        self.folder = folder
        self.bytes = sum(meta["sizes"].values())
        self.limits = Limits(**meta["limits"])
        self.report = SplitReport.from_dict(ids_meta["report"])
        self._ids_folder = ids_folder
        self.source_ids = open_column(where, "source.ids", np.dtype(ids_meta["source_dtype"]), count)
        self.target_ids = open_column(where, "target.ids", np.dtype(ids_meta["target_dtype"]), count)
        self.source_lengths: npt.NDArray[np.int32] = (self.source_ids.lengths() + 1).astype(np.int32)
        self.target_lengths: npt.NDArray[np.int32] = (self.target_ids.lengths() + 1).astype(np.int32)
        self._source_text = open_column(folder, "source.text", BYTES, count)
        self._target_text = open_column(folder, "target.text", BYTES, count)
        self._positions = open_array(folder / "positions", INDEX)
        self._reference_counts = open_array(folder / "references.counts", INDEX)
        if len(self._reference_counts) != count or not is_rising(self._reference_counts):
            raise DamagedStoreError(f"{folder / 'references.counts'} does not count the references")
        references = int(self._reference_counts[-1]) if count else 0
        self._references = open_column(folder, "references.text", BYTES, references)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the files itself; arrays would travel as copies of all they hold.
        return _open, (self.folder, self._ids_folder)

    def __len__(self) -> int:
        return len(self.source_ids)

    def source(self, number: int) -> Values:
        """Ids of a source [length], without EOS."""
        return self.source_ids[number]

    def target(self, number: int) -> Values:
        """Ids of a target [length], without BOS and EOS."""
        return self.target_ids[number]

    def source_text(self, number: int) -> str:
        """The source text, whole also where its ids are cut."""
        return self._source_text.text(number)

    def target_text(self, number: int) -> str:
        """The target text, whole also where its ids are cut."""
        return self._target_text.text(number)

    def references(self, number: int) -> tuple[str, ...]:
        """What an output is scored against: the target text, then further references."""
        first = int(self._reference_counts[number - 1]) if number else 0
        further = range(first, int(self._reference_counts[number]))
        return (self.target_text(number), *(self._references.text(place) for place in further))

    def positions(self, number: int) -> int:
        """Number of the example in its corpus, from 0: in a text file the line, less one."""
        return int(self._positions[number])

    def resampled(self, tokenizers: Tokenizers, *, seed: int, epoch: int, folder: Path) -> "TokenStore":
        """The same examples, segmented anew at random (subword regularisation; Kudo 2018, arXiv:1804.10959).

        A pure function of the texts, the tokenizers, `seed` and `epoch`. What exceeds the limits is cut, which the
        report of the store counts.

        Args:
            tokenizers: with sampling switched on.
            seed: the run's seed.
            epoch: number of the epoch, from 0.
            folder: keeps the ids of the latest epochs in folders of their own, to be shared by several
                processes.
        """
        settings = [tokenizers.source.settings(), tokenizers.target.settings()]
        written = (self.folder / _META).stat().st_mtime_ns  # one built anew may have been damaged before
        made_of = json.dumps([str(self.folder.absolute()), written, tokenizers.fingerprint(), settings, seed])
        series = hashlib.sha256(made_of.encode()).hexdigest()[:16]

        def build(partial: Path) -> None:
            sides = [SideCounter(tokenizers.source, limit=self.limits.source)]
            sides += [SideCounter(tokenizers.target, limit=self.limits.target)]
            with StoreWriter(partial, tokenizers, self.limits, ids_only=True) as writer:
                for chunk, start in enumerate(range(0, len(self), _SAMPLING_CHUNK)):
                    seeds = np.random.SeedSequence([seed, epoch, chunk]).generate_state(2).tolist()
                    numbers = range(start, min(start + _SAMPLING_CHUNK, len(self)))
                    source = [self.source_text(number) for number in numbers]
                    target = [self.target_text(number) for number in numbers]
                    sources = writer.source_sequences(tokenizers.source.sample_batch(source, seed=seeds[0]))
                    targets = writer.target_sequences(tokenizers.target.sample_batch(target, seed=seeds[1]))
                    for side, texts, drawn in zip(sides, (source, target), (sources, targets), strict=True):
                        side.add_texts(texts)
                        side.add_ids(drawn)
                        side.add_kept(drawn)
                    writer.add_ids(sources, targets)
                report = replace(self.report, source=sides[0].result(), target=sides[1].result())
                writer.finish({"report": asdict(report)})

        name = f"{series}-{epoch}"
        build_once(folder / name, build, complete=is_store)
        store = TokenStore(self.folder, ids_folder=folder / name)
        # This one and no older ones: another run of the series, far behind, may be about to open those.
        shutil.rmtree(folder / f"{series}-{epoch - _EPOCHS_KEPT}", ignore_errors=True)
        return store


def _open(folder: Path, ids_folder: Path | None) -> TokenStore:
    return TokenStore(folder, ids_folder=ids_folder)


def read_meta(folder: Path) -> dict[str, Any]:
    """The description of a store, after a look at the sizes of its files.

    Raises:
        DamagedStoreError: it is not complete, or of another format version.
    """
    try:
        meta = json.loads((folder / _META).read_bytes())
        if meta["format_version"] != FORMAT_VERSION:
            raise DamagedStoreError(f"{folder / _META} has format version {meta['format_version']}")
        if meta.pop("checksum") != _checksum(meta):
            raise DamagedStoreError(f"{folder / _META} is damaged")
        wrong = [name for name, size in meta["sizes"].items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStoreError(f"{folder} is no complete token store: {error!r}") from error
    if wrong:
        raise DamagedStoreError(f"{folder}: wrong size of {', '.join(wrong)}")
    return dict(meta)


def is_store(folder: Path, *, at_once: float = math.inf) -> bool:
    """Whether the folder holds a complete token store of this format, of which no bit has changed.

    All of it is read: a damaged id would end a training hours later, or silently train on another text.

    Args:
        folder: where.
        at_once: bytes; of a larger store only the sizes are looked at, and `verify` is to read it beside other work.
    """
    try:
        meta = read_meta(folder)
        if sum(meta["sizes"].values()) > at_once:
            return True
        return all(_sha256(folder / name) == expected for name, expected in meta["sha256"].items())
    except (DamagedStoreError, OSError, KeyError, AttributeError):
        return False


def verify(folder: Path) -> None:
    """Reads a whole store that is in use and compares hashes; a damaged one is never opened again.

    Raises:
        TrainingError: some bit has changed since it was written.
    """
    if is_store(folder):
        return
    with suppress(OSError):  # a cache that may only be read
        (folder / _META).unlink(missing_ok=True)
    raise TrainingError(
        f"{folder}: the prepared data changed on the disk since they were written; nothing that was trained on them "
        "is kept, and the same command prepares them anew"
    )


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StoreWriter:
    """Writes a store chunk by chunk into an existing, empty folder; `finish` makes it one.

    Args:
        folder: where.
        tokenizers: what the ids come from.
        limits: what ids are cut to.
        ids_only: leaves out all but the ids, for `TokenStore.resampled`.
    """

    def __init__(self, folder: Path, tokenizers: Tokenizers, limits: Limits, *, ids_only: bool = False):
        self._folder = folder
        self._limits = limits
        self._dtypes = id_dtype(tokenizers.source.vocab_size), id_dtype(tokenizers.target.vocab_size)
        self._count = 0
        self._references = 0
        names = ["source.ids", "target.ids"]
        if not ids_only:
            names += ["source.text", "target.text", "references.text"]
        self._columns = {name: ColumnWriter(folder, name) for name in names}
        names = [] if ids_only else ["references.counts", "positions"]
        self._arrays = {name: ArrayWriter(folder / name) for name in names}

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def source_sequences(self, ids: Sequence[Sequence[int]]) -> Sequences:
        """Encoded sources in the type they are stored in."""
        return Sequences.from_rows(ids, self._dtypes[0])

    def target_sequences(self, ids: Sequence[Sequence[int]]) -> Sequences:
        """Encoded targets in the type they are stored in."""
        return Sequences.from_rows(ids, self._dtypes[1])

    def add_ids(self, source: Sequences, target: Sequences) -> None:
        """Appends the ids of examples, cut to the limits (which count EOS, and so leave one token less)."""
        self._columns["source.ids"].add(source.cut(self._limits.source - 1))
        self._columns["target.ids"].add(target.cut(self._limits.target - 1))
        self._count += len(source.lengths)

    def add_texts(self, examples: Sequence[Example], positions: Index) -> None:
        """Appends the texts of the same examples, and their numbers in the corpus [B]."""
        self._columns["source.text"].add(Sequences.from_texts(example.source for example in examples))
        self._columns["target.text"].add(Sequences.from_texts(example.target for example in examples))
        further = [example.references[1:] for example in examples]
        self._columns["references.text"].add(Sequences.from_texts(text for texts in further for text in texts))
        counts = self._references + np.cumsum([len(texts) for texts in further], dtype=INDEX)
        self._references = int(counts[-1]) if len(counts) else self._references
        self._arrays["references.counts"].add(counts)
        self._arrays["positions"].add(positions.astype(INDEX))

    def finish(self, description: dict[str, Any]) -> None:
        """Puts everything on the disk, then writes ``meta.json`` with what is given added."""
        self._close()
        files = sorted(self._folder.iterdir())
        meta = {
            "format_version": FORMAT_VERSION,
            "count": self._count,
            "limits": asdict(self._limits),
            "source_dtype": self._dtypes[0].str,
            "target_dtype": self._dtypes[1].str,
            "sizes": {path.name: path.stat().st_size for path in files},
            "sha256": {path.name: _sha256(path) for path in files},
            **description,
        }
        with open(self._folder / _META, "w", encoding="utf-8") as file:
            json.dump({**meta, "checksum": _checksum(meta)}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def _close(self) -> None:
        for column in self._columns.values():
            column.close()
        for array in self._arrays.values():
            array.close()
