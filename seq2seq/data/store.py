"""The token store: one encoded split of a corpus on disk, opened as memory-mapped arrays in milliseconds.

A store is a folder. Ids and texts are ragged arrays: one file with the concatenated values, one with the end
offsets. Opening takes about the same time for ten examples as for ten million, and reading needs no lock.
``meta.json`` is written last: a folder without it is not a store. Before opening an existing store, call `is_store`,
which reads it once and compares hashes; `verify` can do so for a large store while it is already in use.
Integers are little-endian.

=====================  ===================================================================================
file                   content
=====================  ===================================================================================
``meta.json``          format version, number of examples, limits, report, size and sha256 of each other file,
                       and the sha256 of all that
``source.ids``         uint16 (vocabularies up to 65,536) or uint32; neither BOS nor EOS; cut to the limits
``source.ids.ends``    int64 [N], offset at which each example's ids end; likewise for each text file
``source.text``        UTF-8, not cut; likewise ``target.ids`` and ``target.text``
``references.text``    additional references of all examples, one entry per reference
``references.counts``  int64 [N], cumulative number of additional references up to and including each example
``positions``          int64 [N], index of the example in its corpus, from 0
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
    INT64,
    UINT8,
    Array,
    ArrayWriter,
    DamagedStoreError,
    IntArray,
    RaggedArray,
    RaggedWriter,
    is_nondecreasing,
    open_array,
    open_ragged,
)
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.errors import TrainingError
from seq2seq.system.atomic_folder import build_once
from seq2seq.tokenizers.pair import Tokenizers

FORMAT_VERSION = 3
_META = "meta.json"
_SAMPLING_CHUNK = 8192  # examples sampled with one seed; changing it changes what (seed, epoch) draws
_EPOCHS_KEPT = 8  # resampled epochs on disk; ranks are a few steps apart, but one step may span an epoch


@dataclass(frozen=True)
class LengthLimits:
    """Maximum number of tokens in a source and in a target, EOS included."""

    source: int
    target: int


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """Returns the dtype of stored ids: 2 bytes if they fit, else 4."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class TokenStore:
    """The examples of one split by index, 0 to N-1. Safe to read from several threads.

    Attributes:
        folder: the store's folder.
        bytes: total size of its files.
        limits: the lengths that ids were cut to.
        report: what was read, dropped and kept.
        source_ids: ids of the sources, without EOS.
        target_ids: ids of the targets, without BOS and EOS.
        source_lengths: int32 [N], tokens per source, EOS included.
        target_lengths: int32 [N], tokens per target, EOS included.
    """

    VERIFY_ON_OPEN_BYTES = 2**26  # stores up to this size are verified before they are opened: about 0.05 s

    def __init__(self, folder: Path, *, ids_folder: Path | None = None):
        """Opens a store.

        Args:
            folder: the store.
            ids_folder: where to read the ids from instead (see `resampled`).

        Raises:
            DamagedStoreError: the store is incomplete, or of another format version.
        """
        meta = read_meta(folder)
        ids_meta = read_meta(ids_folder) if ids_folder else meta
        ids_root = ids_folder or folder
        count = int(meta["count"])
        self.folder = folder
        self.bytes = sum(meta["sizes"].values())
        self.limits = LengthLimits(**meta["limits"])
        self.report = SplitReport.from_dict(ids_meta["report"])
        self._ids_folder = ids_folder
        self.source_ids = open_ragged(ids_root, "source.ids", np.dtype(ids_meta["source_dtype"]), count)
        self.target_ids = open_ragged(ids_root, "target.ids", np.dtype(ids_meta["target_dtype"]), count)
        self.source_lengths: npt.NDArray[np.int32] = (self.source_ids.lengths() + 1).astype(np.int32)
        self.target_lengths: npt.NDArray[np.int32] = (self.target_ids.lengths() + 1).astype(np.int32)
        self._source_text = open_ragged(folder, "source.text", UINT8, count)
        self._target_text = open_ragged(folder, "target.text", UINT8, count)
        self._corpus_indices = open_array(folder / "positions", INT64)
        self._reference_counts = open_array(folder / "references.counts", INT64)
        if len(self._reference_counts) != count or not is_nondecreasing(self._reference_counts):
            raise DamagedStoreError(f"{folder / 'references.counts'} does not count the references")
        references = int(self._reference_counts[-1]) if count else 0
        self._references = open_ragged(folder, "references.text", UINT8, references)

    def __reduce__(self) -> tuple[Any, ...]:
        # The other process maps the files itself; pickled arrays would be full copies.
        return _open, (self.folder, self._ids_folder)

    def __len__(self) -> int:
        return len(self.source_ids)

    def source(self, index: int) -> Array:
        """Returns the ids of a source [length], without EOS."""
        return self.source_ids[index]

    def target(self, index: int) -> Array:
        """Returns the ids of a target [length], without BOS and EOS."""
        return self.target_ids[index]

    def source_text(self, index: int) -> str:
        """Returns the whole source text, even where its ids are cut."""
        return self._source_text.text(index)

    def target_text(self, index: int) -> str:
        """Returns the whole target text, even where its ids are cut."""
        return self._target_text.text(index)

    def references(self, index: int) -> tuple[str, ...]:
        """Returns the texts to score an output against: the target, then additional references."""
        start = int(self._reference_counts[index - 1]) if index else 0
        additional = range(start, int(self._reference_counts[index]))
        return (self.target_text(index), *(self._references.text(i) for i in additional))

    def corpus_index(self, index: int) -> int:
        """Returns the example's index in its corpus, from 0: in a text file, the line number minus one."""
        return int(self._corpus_indices[index])

    def resampled(self, tokenizers: Tokenizers, *, seed: int, epoch: int, folder: Path) -> "TokenStore":
        """Returns the same examples with randomly sampled segmentations (subword regularization).

        A pure function of the texts, the tokenizers, `seed` and `epoch` (Kudo 2018, arXiv:1804.10959). Ids beyond the
        limits are cut; the report of the returned store counts them.

        Args:
            tokenizers: tokenizers with sampling enabled.
            seed: the run's seed.
            epoch: epoch index, from 0.
            folder: stores the ids of the latest epochs, one subfolder per epoch, shared by all processes.
        """
        settings = [tokenizers.source.settings(), tokenizers.target.settings()]
        written = (self.folder / _META).stat().st_mtime_ns  # a rebuilt store may have been damaged before
        key = json.dumps([str(self.folder.absolute()), written, tokenizers.fingerprint(), settings, seed])
        series = hashlib.sha256(key.encode()).hexdigest()[:16]

        def build(partial: Path) -> None:
            sides = [SideCounter(tokenizers.source, limit=self.limits.source)]
            sides += [SideCounter(tokenizers.target, limit=self.limits.target)]
            with StoreWriter(partial, tokenizers, self.limits, ids_only=True) as writer:
                for chunk, start in enumerate(range(0, len(self), _SAMPLING_CHUNK)):
                    seeds = np.random.SeedSequence([seed, epoch, chunk]).generate_state(2).tolist()
                    indices = range(start, min(start + _SAMPLING_CHUNK, len(self)))
                    source = [self.source_text(index) for index in indices]
                    target = [self.target_text(index) for index in indices]
                    sources = writer.pack_source(tokenizers.source.sample_batch(source, seed=seeds[0]))
                    targets = writer.pack_target(tokenizers.target.sample_batch(target, seed=seeds[1]))
                    for side, texts, sampled in zip(sides, (source, target), (sources, targets), strict=True):
                        side.add_texts(texts)
                        side.add_ids(sampled)
                        side.add_kept(sampled)
                    writer.add_ids(sources, targets)
                report = replace(self.report, source=sides[0].result(), target=sides[1].result())
                writer.finish({"report": asdict(report)})

        name = f"{series}-{epoch}"
        build_once(folder / name, build, is_complete=is_store)
        store = TokenStore(self.folder, ids_folder=folder / name)
        # Delete only this epoch, none older: another run of the series, far behind, may be about to open those.
        shutil.rmtree(folder / f"{series}-{epoch - _EPOCHS_KEPT}", ignore_errors=True)
        return store


def _open(folder: Path, ids_folder: Path | None) -> TokenStore:
    return TokenStore(folder, ids_folder=ids_folder)


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads ``meta.json`` and checks the sizes of the store's files.

    Raises:
        DamagedStoreError: the store is incomplete, or of another format version.
    """
    try:
        meta = json.loads((folder / _META).read_bytes())
        if meta["format_version"] != FORMAT_VERSION:
            raise DamagedStoreError(f"{folder / _META} has format version {meta['format_version']}")
        if meta.pop("checksum") != _checksum(meta):
            raise DamagedStoreError(f"{folder / _META} is damaged")
        wrong = [name for name, size in meta["sizes"].items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStoreError(f"{folder} is not a complete token store: {error!r}") from error
    if wrong:
        raise DamagedStoreError(f"{folder}: wrong size of {', '.join(wrong)}")
    return dict(meta)


def is_store(folder: Path, *, max_hash_bytes: float = math.inf) -> bool:
    """Whether the folder holds a complete, undamaged token store of this format.

    Reads and hashes all files: a damaged id would crash training hours later, or silently train on another text.

    Args:
        folder: the store's folder.
        max_hash_bytes: for a larger store only the file sizes are checked; call `verify` on it later.
    """
    try:
        meta = read_meta(folder)
        if sum(meta["sizes"].values()) > max_hash_bytes:
            return True
        return all(_sha256(folder / name) == expected for name, expected in meta["sha256"].items())
    except (DamagedStoreError, OSError, KeyError, AttributeError):
        return False


def verify(folder: Path) -> None:
    """Reads a whole store that is in use and compares hashes; a damaged one is invalidated.

    Raises:
        TrainingError: the files have changed since they were written.
    """
    if is_store(folder):
        return
    with suppress(OSError):  # a read-only cache
        (folder / _META).unlink(missing_ok=True)
    raise TrainingError(
        f"{folder}: the prepared data changed on disk since it was written; nothing trained on it is kept. "
        "Run the same command again to rebuild it"
    )


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StoreWriter:
    """Writes a store chunk by chunk into an existing, empty folder; `finish` completes it.

    Args:
        folder: the folder to write to.
        tokenizers: the tokenizers that produce the ids.
        limits: the lengths to cut ids to.
        ids_only: writes the ids only, for `TokenStore.resampled`.
    """

    def __init__(self, folder: Path, tokenizers: Tokenizers, limits: LengthLimits, *, ids_only: bool = False):
        self._folder = folder
        self._limits = limits
        self._dtypes = id_dtype(tokenizers.source.vocab_size), id_dtype(tokenizers.target.vocab_size)
        self._count = 0
        self._num_references = 0
        names = ["source.ids", "target.ids"]
        if not ids_only:
            names += ["source.text", "target.text", "references.text"]
        self._ragged = {name: RaggedWriter(folder, name) for name in names}
        names = [] if ids_only else ["references.counts", "positions"]
        self._arrays = {name: ArrayWriter(folder / name) for name in names}

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def pack_source(self, ids: Sequence[Sequence[int]]) -> RaggedArray:
        """Returns encoded sources in the dtype that they are stored in."""
        return RaggedArray.from_rows(ids, self._dtypes[0])

    def pack_target(self, ids: Sequence[Sequence[int]]) -> RaggedArray:
        """Returns encoded targets in the dtype that they are stored in."""
        return RaggedArray.from_rows(ids, self._dtypes[1])

    def add_ids(self, source: RaggedArray, target: RaggedArray) -> None:
        """Appends the ids of examples, cut to the limits (minus one, for EOS)."""
        self._ragged["source.ids"].append(source.truncate(self._limits.source - 1))
        self._ragged["target.ids"].append(target.truncate(self._limits.target - 1))
        self._count += len(source.lengths)

    def add_texts(self, examples: Sequence[Example], corpus_indices: IntArray) -> None:
        """Appends the texts of the same examples, and their indices in the corpus [B]."""
        self._ragged["source.text"].append(RaggedArray.from_texts(example.source for example in examples))
        self._ragged["target.text"].append(RaggedArray.from_texts(example.target for example in examples))
        additional = [example.references[1:] for example in examples]
        self._ragged["references.text"].append(RaggedArray.from_texts(text for texts in additional for text in texts))
        counts = self._num_references + np.cumsum([len(texts) for texts in additional], dtype=INT64)
        self._num_references = int(counts[-1]) if len(counts) else self._num_references
        self._arrays["references.counts"].append(counts)
        self._arrays["positions"].append(corpus_indices.astype(INT64))

    def finish(self, description: dict[str, Any]) -> None:
        """Flushes all files to disk, then writes ``meta.json``, extended by `description`."""
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
        for ragged in self._ragged.values():
            ragged.close()
        for array in self._arrays.values():
            array.close()
