"""The token store: one encoded split of a corpus on disk, opened as memory-mapped arrays in milliseconds.

A store is a folder. Ids and texts are ragged arrays: one file with the concatenated values, one with the
offsets. Opening takes about the same time for ten examples as for ten million, and reading needs no lock.
``meta.json`` is written last: a folder without it is not a store. Before opening an existing store, call `is_store`,
which reads it once and compares hashes; `verify` can do so for a large store while it is already in use.
Integers are little-endian.

======================  ================================================================================
file                    content
======================  ================================================================================
``meta.json``           format version, report, dtypes, size and sha256 of each other file, and the sha256 of all
                        that
``source.ids``          uint16 (vocabularies up to 65,536) or uint32; neither BOS nor EOS; cut to the limits
``source.ids.offsets``  int64 [N+1], where each example's ids start, and where the last ones end; likewise for each
                        other file
``source.text``         UTF-8, not cut; likewise ``target.ids`` and ``target.text``
``references.text``     additional references of each example, a JSON list
======================  ================================================================================
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seq2seq.data.corpus import Example
from seq2seq.data.ragged import UINT8, DamagedStoreError, IntArray, RaggedArray, RaggedWriter, open_ragged
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.errors import TrainingError
from seq2seq.system.atomic_folder import build_once
from seq2seq.system.files import sha256_of
from seq2seq.tokenizers.base import Tokenizer
from seq2seq.tokenizers.pair import Tokenizers

FORMAT_VERSION = 4
_META = "meta.json"
_SAMPLING_CHUNK = 8192  # examples sampled with one seed; changing it changes what (seed, epoch) draws
_EPOCHS_KEPT = 8  # resampled epochs on disk; ranks are a few steps apart, but one step may span an epoch


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """Returns the dtype of stored ids: 2 bytes if they fit, else 4."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def pack(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> RaggedArray:
    """Returns texts that a tokenizer encoded, in the dtype that they are stored in."""
    return RaggedArray.from_rows(rows, id_dtype(tokenizer.vocab_size))


class TokenStore:
    """The examples of one split by index, 0 to N-1. Safe to read from several threads.

    Attributes:
        folder: the store's folder.
        bytes: total size of its files.
        report: what was read, dropped, kept and cut, and the limits that ids were cut to.
        source_ids: ids of the sources, without EOS.
        target_ids: ids of the targets, without BOS and EOS.
        source_lengths: int32 [N], tokens per source, EOS included.
        target_lengths: int32 [N], tokens per target, EOS included.
    """

    VERIFY_ON_OPEN_BYTES = 2**26  # stores up to this size are verified before they are opened: about 0.05 s

    def __init__(self, folder: Path, ids_folder: Path | None = None):
        """Opens a store.

        Args:
            folder: the store.
            ids_folder: where to read the ids from instead (see `resampled`).

        Raises:
            DamagedStoreError: the store is incomplete, or of another format version.
        """
        ids_folder = ids_folder or folder
        ids_meta = read_meta(ids_folder)
        self.folder = folder
        self.bytes = sum(read_meta(folder)["sizes"].values())
        self.report = SplitReport.from_dict(ids_meta["report"])
        self._ids_folder = ids_folder
        count = self.report.kept
        self.source_ids = open_ragged(ids_folder, "source.ids", np.dtype(ids_meta["source_dtype"]), count)
        self.target_ids = open_ragged(ids_folder, "target.ids", np.dtype(ids_meta["target_dtype"]), count)
        self.source_lengths: npt.NDArray[np.int32] = (self.source_ids.lengths + 1).astype(np.int32)
        self.target_lengths: npt.NDArray[np.int32] = (self.target_ids.lengths + 1).astype(np.int32)
        self._source_text = open_ragged(folder, "source.text", UINT8, count)
        self._target_text = open_ragged(folder, "target.text", UINT8, count)
        self._references = open_ragged(folder, "references.text", UINT8, count)

    def __reduce__(self) -> tuple[Any, ...]:
        # The other process maps the files itself; pickled arrays would be full copies.
        return TokenStore, (self.folder, self._ids_folder)

    def __len__(self) -> int:
        return len(self.source_ids)

    def source_text(self, index: int) -> str:
        """Returns the whole source text, even where its ids are cut."""
        return self._source_text.text(index)

    def target_text(self, index: int) -> str:
        """Returns the whole target text, even where its ids are cut."""
        return self._target_text.text(index)

    def references(self, index: int) -> tuple[str, ...]:
        """Returns the texts to score an output against: the target, then additional references.

        Raises:
            DamagedStoreError: the file does not hold them.
        """
        try:
            return (self.target_text(index), *json.loads(self._references.text(index)))
        except ValueError as error:
            raise DamagedStoreError(f"the references of text {index} of a token store are damaged: {error}") from None

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
            sides = (tokenizers.source, tokenizers.target)
            limits = (self.report.source.limit, self.report.target.limit)
            with closing(StoreWriter(partial, tokenizers, limits, ids_only=True)) as writer:
                for chunk, start in enumerate(range(0, len(self), _SAMPLING_CHUNK)):
                    seeds = np.random.SeedSequence([seed, epoch, chunk]).generate_state(2).tolist()
                    indices = range(start, min(start + _SAMPLING_CHUNK, len(self)))
                    texts = [[text(index) for index in indices] for text in (self.source_text, self.target_text)]
                    writer.count_texts(*texts)
                    source, target = (
                        pack(tokenizer.sample_batch(side_texts, seed=side_seed), tokenizer)
                        for tokenizer, side_texts, side_seed in zip(sides, texts, seeds, strict=True)
                    )
                    writer.add_ids(source, target)
                writer.finish(self.report.dropped)

        name = f"{series}-{epoch}"
        build_once(folder / name, build, is_complete=is_store)
        store = TokenStore(self.folder, folder / name)
        # Delete only this epoch, none older: another run of the series, far behind, may be about to open those.
        shutil.rmtree(folder / f"{series}-{epoch - _EPOCHS_KEPT}", ignore_errors=True)
        return store


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


def is_store(folder: Path, *, trust_large: bool = False) -> bool:
    """Whether the folder holds a complete, undamaged token store of this format.

    Reads and hashes all files: a damaged id would crash training hours later, or silently train on another text.

    Args:
        folder: the store's folder.
        trust_large: checks only the file sizes of stores above `TokenStore.VERIFY_ON_OPEN_BYTES`; call `verify` on
            them later.
    """
    try:
        meta = read_meta(folder)
        if trust_large and sum(meta["sizes"].values()) > TokenStore.VERIFY_ON_OPEN_BYTES:
            return True
        return all(sha256_of(folder / name) == expected for name, expected in meta["sha256"].items())
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


class StoreWriter:
    """Writes a store chunk by chunk into an existing, empty folder; `finish` completes it, `close` must follow.

    Args:
        folder: the folder to write to.
        tokenizers: the tokenizers that produce the ids.
        limits: maximum number of tokens in a source and in a target, EOS included, to cut ids to.
        ids_only: writes the ids only, for `TokenStore.resampled`.
    """

    def __init__(self, folder: Path, tokenizers: Tokenizers, limits: tuple[int, int], *, ids_only: bool = False):
        self._folder = folder
        self._tokenizers = (tokenizers.source, tokenizers.target)
        self._count = 0
        self._counters = [
            SideCounter(tokenizer, limit=limit) for tokenizer, limit in zip(self._tokenizers, limits, strict=True)
        ]
        texts = [] if ids_only else ["source.text", "target.text", "references.text"]
        self._files = {name: RaggedWriter(folder, name) for name in ("source.ids", "target.ids", *texts)}

    def count_texts(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Counts texts for the report, also those that are dropped."""
        for counter, texts in zip(self._counters, (sources, targets), strict=True):
            counter.add_texts(texts)

    def add_ids(self, source: RaggedArray, target: RaggedArray, kept: IntArray | None = None) -> None:
        """Counts the ids of examples and appends those of the examples to keep, cut to the limits (minus one, for EOS).

        Args:
            source: ids of the sources.
            target: ids of the targets.
            kept: indices of the examples to keep; None keeps all.
        """
        for name, counter, ids in zip(("source.ids", "target.ids"), self._counters, (source, target), strict=True):
            self._files[name].append(counter.add_ids(ids, kept))
        self._count += len(source) if kept is None else len(kept)

    def add_texts(self, examples: Sequence[Example]) -> None:
        """Appends the texts of the same examples."""
        texts = {
            "source.text": (example.source for example in examples),
            "target.text": (example.target for example in examples),
            "references.text": (
                json.dumps(example.references[1:]) if len(example.references) > 1 else "[]" for example in examples
            ),
        }
        for name, entries in texts.items():
            self._files[name].append(RaggedArray.from_texts(entries))

    def finish(self, dropped: dict[str, int], unreadable: Sequence[str] = ()) -> None:
        """Flushes all files to disk, then writes ``meta.json``.

        Args:
            dropped: number of dropped examples by reason.
            unreadable: see `SplitReport`.
        """
        self.close()
        files = sorted(self._folder.iterdir())
        source, target = (counter.result() for counter in self._counters)
        num_read = self._count + sum(dropped.values())
        report = SplitReport(num_read, self._count, dropped, source, target, list(unreadable))
        dtypes = [id_dtype(tokenizer.vocab_size).str for tokenizer in self._tokenizers]
        meta = {
            "format_version": FORMAT_VERSION,
            "source_dtype": dtypes[0],
            "target_dtype": dtypes[1],
            "sizes": {path.name: path.stat().st_size for path in files},
            "sha256": {path.name: sha256_of(path) for path in files},
            "report": asdict(report),
        }
        with open(self._folder / _META, "w", encoding="utf-8") as file:
            json.dump({**meta, "checksum": _checksum(meta)}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Flushes all files to disk and closes them; a second call does nothing."""
        for file in self._files.values():
            file.close()
