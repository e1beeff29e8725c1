"""Builds tokenizers and token stores from corpora, once per content and settings, and opens them from the cache."""

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seq2seq.data.corpus import (
    CorpusConfig,
    DataConfig,
    Example,
    corpus_files,
    is_jsonl,
    read_examples,
    resolve_root,
)
from seq2seq.data.encode import write_store
from seq2seq.data.fingerprints import FileState, file_state
from seq2seq.data.ragged import DamagedStoreError
from seq2seq.data.report import SplitReport
from seq2seq.data.store import TokenStore, is_store, verify
from seq2seq.data.unreadable import UnreadableRecords, collector
from seq2seq.errors import UserError
from seq2seq.system.atomic_folder import build_once
from seq2seq.tokenizers.config import TokenizerConfig
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers, train_tokenizers

_ENCODING_VERSION = 1  # increment when the same text and settings produce a different store
_TRAIN_ONLY = ("on_long", "max_length_ratio", "drop_duplicates", "drop_identical")

Log = Callable[[str], None]


@dataclass(frozen=True)
class PreparedData:
    """The tokenizers and token stores of a run.

    Attributes:
        tokenizers: the tokenizers of both sides.
        train: training examples, filtered.
        valid: validation examples, unfiltered.
        test: test sets by name, unfiltered.
        reports: what was read, dropped and kept, by split: ``train``, ``valid`` and each ``test.<name>``.
        fingerprints: sha256 of each data file by its config key, and of the ``tokenizer``.
    """

    tokenizers: Tokenizers
    train: TokenStore
    valid: TokenStore
    test: dict[str, TokenStore]
    reports: dict[str, SplitReport]
    fingerprints: dict[str, str]

    def verify(self) -> None:
        """Reads the stores that were too large to verify when they were opened, and compares hashes.

        Meant to run in the background of training, which must not save anything before this has finished.

        Raises:
            TrainingError: the files have changed since they were written.
        """
        for store in (self.train, self.valid, *self.test.values()):
            if store.bytes > store.VERIFY_ON_OPEN_BYTES:
                verify(store.folder)


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    *,
    cache_root: Path,
    seed: int,
    log: Log,
    tokenizers: Tokenizers | None = None,
) -> PreparedData:
    """Opens the tokenizers and token stores of a run; builds those that the cache lacks.

    If another process is building the same, waits for it and uses its result. What a killed process leaves behind
    is never taken for complete.

    Args:
        data: corpora, limits, filters.
        tokenizer: settings of the tokenizers.
        cache_root: folder of ``tokenizers/``, ``stores/`` and ``hashes.json``.
        seed: seed of the sample that tokenizers are trained on.
        log: called with progress messages for the user.
        tokenizers: existing tokenizers, as for fine-tuning; then `tokenizer` and `seed` are unused.

    Raises:
        UserError: a corpus is invalid; raised before a tokenizer is trained.
    """
    splits = _hash_splits(data, cache_root)
    if tokenizers is None:
        tokenizers = _build_tokenizers(splits, tokenizer, cache_root=cache_root, seed=seed, log=log)
    # The training set comes last: it takes longest, and errors in the others should show first.
    names = sorted(splits, key=lambda name: name == "train")
    stores = {name: _build_store(splits[name], tokenizers, cache_root / "stores", log=log) for name in names}
    return PreparedData(
        tokenizers=tokenizers,
        train=stores["train"],
        valid=stores["valid"],
        test={name: stores[f"test.{name}"] for name in data.test},
        reports={name: stores[name].report for name in splits},
        fingerprints={**_fingerprints(splits), "tokenizer": tokenizers.fingerprint()},
    )


def is_prepared(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    *,
    cache_root: Path,
    seed: int,
    tokenizers: Tokenizers | None = None,
) -> bool:
    """Whether the cache has the tokenizers and the training set, so that `prepare` is fast.

    Raises:
        UserError: a corpus names no files, or one of them is missing.
    """
    train = _hash_splits(data, cache_root)["train"]
    if tokenizers is None:
        folder = _tokenizers_folder(train, tokenizer, cache_root=cache_root, seed=seed)
        if not _has_tokenizers(folder):
            return False
        tokenizers = load_tokenizers(folder)
    folder = _store_folder(train, tokenizers, cache_root / "stores")
    return is_store(folder, trust_large=True)


def file_fingerprints(data: DataConfig, cache_root: Path) -> dict[str, str]:
    """Returns the sha256 of each data file by its config key, from the cache if the file has not changed.

    Raises:
        UserError: a corpus names no files, or one of them is missing.
    """
    return _fingerprints(_hash_splits(data, cache_root))


def open_corpus(corpus: CorpusConfig, tokenizers: Tokenizers, data: DataConfig, *, key: str) -> TokenStore:
    """Encodes a corpus to evaluate on into a temporary store outside the cache: all examples, in order.

    The store's folder is deleted at once. The mapped files live as long as the store object, which therefore cannot
    be reopened or pickled.

    Args:
        corpus: the corpus.
        tokenizers: the tokenizers of both sides.
        data: root and length limits.
        key: the section's config key for messages, such as ``data.test.mine``.

    Raises:
        UserError: the corpus is invalid.
    """
    examples = read_examples(corpus, resolve_root(data.root), key, errors=data.encoding_errors)
    with tempfile.TemporaryDirectory(prefix="seq2seq-") as folder:
        write_store(Path(folder), examples, tokenizers, data, training=False)
        return TokenStore(Path(folder))


@dataclass(frozen=True)
class _Split:
    """A corpus, how it is read, and the hashes of its files.

    Attributes:
        key: config key of the corpus section.
        corpus: the corpus section.
        data: the enclosing data section.
        files: the files by config key.
    """

    key: str
    corpus: CorpusConfig
    data: DataConfig
    files: dict[str, FileState]

    @property
    def training(self) -> bool:
        return self.key == "data.train"

    @property
    def cache_key(self) -> list[Any]:
        """Everything that determines the examples: file hashes and how the files are read."""
        corpus = self.corpus
        fields = [corpus.source_field, corpus.target_field, corpus.references_field]
        # The suffixes of a file name say how to read it: compressed or not, and the format.
        suffixes = [Path(name).suffixes[-2:] for name in (corpus.path, corpus.source, corpus.target) if name]
        hashes = [state.sha256 for state in self.files.values()]
        skip = [self.data.on_error.value] if self.unreadable_records() is not None else []
        return [hashes, suffixes, fields, self.data.encoding_errors, *skip]

    def unreadable_records(self) -> UnreadableRecords | None:
        """See `unreadable.collector`."""
        return collector(self.data.on_error, self.key.removeprefix("data."))

    def examples(self, unreadable: UnreadableRecords | None = None) -> Iterator[Example]:
        """Reads all examples; each call reads the files again and checks that they have not changed.

        Args:
            unreadable: receives the records that are left out, for a caller that reports them.
        """
        unreadable = self.unreadable_records() if unreadable is None else unreadable
        root, errors = resolve_root(self.data.root), self.data.encoding_errors
        yield from read_examples(self.corpus, root, self.key, errors=errors, unreadable=unreadable)
        for state in self.files.values():
            state.check_unchanged()


def _hash_splits(data: DataConfig, cache_root: Path) -> dict[str, _Split]:
    """Hashes the files of all corpora; returns the splits by name, as `DataConfig.corpora`."""
    cache = cache_root / "hashes.json"
    splits = {}
    for name, corpus in data.corpora().items():
        paths = corpus_files(corpus, resolve_root(data.root), f"data.{name}")
        files = {key: file_state(path, f"{key}={path}", cache) for key, path in paths.items()}
        splits[name] = _Split(f"data.{name}", corpus, data, files)
    return splits


def _fingerprints(splits: dict[str, _Split]) -> dict[str, str]:
    return {key: state.sha256 for split in splits.values() for key, state in split.files.items()}


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizers_folder(train: _Split, config: TokenizerConfig, *, cache_root: Path, seed: int) -> Path:
    settings = asdict(config)
    if train.corpus.path is None or not is_jsonl(train.corpus.path):  # no text has a line break that it would concern
        del settings["line_breaks"]
    del settings["source_vectors"], settings["target_vectors"]  # concern the model only
    return cache_root / "tokenizers" / _digest([train.cache_key, settings, seed])


def _build_tokenizers(
    splits: dict[str, _Split], config: TokenizerConfig, *, cache_root: Path, seed: int, log: Log
) -> Tokenizers:
    train = splits["train"]
    folder = _tokenizers_folder(train, config, cache_root=cache_root, seed=seed)

    def build(target: Path) -> None:
        for split in splits.values():
            if not split.training:  # read the other files first: their errors should show before minutes of training
                deque(split.examples(), maxlen=0)
        log(f"Training the tokenizer: {config.kind.value}, at most {config.vocab_size:,} tokens.")
        tokenizers = train_tokenizers(
            lambda: (example.source for example in train.examples()),
            lambda: (example.target for example in train.examples()),
            config,
            seed=seed,
        )
        tokenizers.save(target)

    build_once(folder, build, is_complete=_has_tokenizers, log=log)
    return load_tokenizers(folder)


def _has_tokenizers(folder: Path) -> bool:
    try:
        load_tokenizers(folder)
    except UserError:  # missing or damaged: the cache entry is rebuilt
        return False
    return True


def _store_folder(split: _Split, tokenizers: Tokenizers, root: Path) -> Path:
    data = split.data
    settings: list[Any] = [_ENCODING_VERSION, data.max_source_length, data.max_target_length]
    if split.training:
        settings += [getattr(data, name) for name in _TRAIN_ONLY]
    return root / _digest([split.cache_key, settings, tokenizers.fingerprint()])


def _build_store(split: _Split, tokenizers: Tokenizers, root: Path, *, log: Log) -> TokenStore:
    folder = _store_folder(split, tokenizers, root)

    def build(target: Path) -> None:
        log(f"Encoding {split.key}.")
        unreadable = split.unreadable_records()
        examples = split.examples(unreadable)
        write_store(target, examples, tokenizers, split.data, training=split.training, unreadable=unreadable)

    build_once(folder, build, is_complete=partial(is_store, trust_large=True), log=log)
    try:
        return TokenStore(folder)
    except DamagedStoreError:  # a large store, whose hashes were not compared
        build_once(folder, build, is_complete=is_store, log=log)
        return TokenStore(folder)
