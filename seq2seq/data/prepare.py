"""From corpora to tokenizers and token stores: built once for each content and settings, then only opened."""

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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
from seq2seq.data.fingerprints import FileState, HashCache
from seq2seq.data.ragged import DamagedStoreError
from seq2seq.data.report import DataReport
from seq2seq.data.store import TokenStore, is_store, verify
from seq2seq.errors import UserError
from seq2seq.system.atomic_folder import build_once
from seq2seq.tokenizers.config import TokenizerConfig
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers, train_tokenizers

_ENCODING_VERSION = 1  # raised when the same text and settings come to be stored differently
_TRAIN_ONLY = ("on_long", "max_length_ratio", "drop_duplicates", "drop_identical")

Log = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """All that training needs of the data.

    Attributes:
        tokenizers: of both sides.
        train: training examples, filtered.
        valid: validation examples, all of them.
        test: test sets by name, all examples of each.
        report: what was read, dropped and kept.
        fingerprints: sha256 of each data file by its config key, and of the ``tokenizer``.
    """

    tokenizers: Tokenizers
    train: TokenStore
    valid: TokenStore
    test: dict[str, TokenStore]
    report: DataReport
    fingerprints: dict[str, str]

    def verify(self) -> None:
        """Reads the stores that are too large to be read before they are opened, and compares hashes.

        It takes longer the larger they are and runs well beside training, as long as nothing is kept before its end.

        Raises:
            TrainingError: some bit has changed since they were written.
        """
        for store in (self.train, self.valid, *self.test.values()):
            if store.bytes > store.READ_AT_ONCE:
                verify(store.folder)


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    *,
    cache_root: Path,
    seed: int,
    log: Log,
    tokenizers: Tokenizers | None = None,
) -> Prepared:
    """Opens the tokenizers and token stores of a run, after building those that the cache lacks.

    A second process that prepares the same waits for the first and uses its work; a killed one leaves nothing
    that is taken for complete.

    Args:
        data: corpora, limits, filters.
        tokenizer: settings of the tokenizers.
        cache_root: holds ``tokenizers/``, ``stores/`` and ``hashes.json``.
        seed: of the sample that tokenizers are trained on.
        log: takes lines for the user.
        tokenizers: existing ones, as for fine-tuning; then `tokenizer` and `seed` are not used.

    Raises:
        UserError: something is wrong with the corpora; it is said before a tokenizer is trained.
    """
    splits = _open_splits(data, cache_root)
    if tokenizers is None:
        folder = _tokenizers_folder(splits["train"], tokenizer, cache_root=cache_root, seed=seed)
        tokenizers = _tokenizers(folder, splits, tokenizer, seed=seed, log=log)
    # The training set comes last: it takes the longest, and what is wrong with the others shows before.
    names = sorted(splits, key=lambda name: name == "train")
    stores = {name: _store(splits[name], tokenizers, cache_root / "stores", log=log) for name in names}
    return Prepared(
        tokenizers=tokenizers,
        train=stores["train"],
        valid=stores["valid"],
        test={name: stores[f"test.{name}"] for name in data.test},
        report=DataReport({name: stores[name].report for name in splits}),
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
    """Whether the cache has the tokenizers and the training set, so that `prepare` takes no time to speak of.

    Raises:
        UserError: a corpus names no files, or one of them is missing.
    """
    train = _open_splits(data, cache_root)["train"]
    if tokenizers is None:
        folder = _tokenizers_folder(train, tokenizer, cache_root=cache_root, seed=seed)
        if not _holds_tokenizers(folder):
            return False
        tokenizers = load_tokenizers(folder)
    return is_store(_store_folder(train, tokenizers, cache_root / "stores"), at_once=TokenStore.READ_AT_ONCE)


def file_fingerprints(data: DataConfig, cache_root: Path) -> dict[str, str]:
    """sha256 of each data file by its config key; the cache remembers those of files that have not changed.

    Raises:
        UserError: a corpus names no files, or one of them is missing.
    """
    return _fingerprints(_open_splits(data, cache_root))


def open_corpus(corpus: CorpusConfig, tokenizers: Tokenizers, data: DataConfig, *, key: str) -> TokenStore:
    """The store of a corpus to evaluate on, outside the cache: all examples, in order.

    It lies in a folder of the system for temporary files that is removed at once; the files live as long as
    the store is open, so it cannot be opened again.

    Args:
        corpus: where the examples are.
        tokenizers: encode both sides.
        data: root and limits.
        key: the section's config key for messages, such as ``data.test.mine``.

    Raises:
        UserError: something is wrong with the corpus.
    """
    examples = read_examples(corpus, resolve_root(data.root), key, errors=data.encoding_errors)
    with tempfile.TemporaryDirectory(prefix="seq2seq-") as folder:
        write_store(Path(folder), examples, tokenizers, data, training=False)
        return TokenStore(Path(folder))


@dataclass(frozen=True)
class _Split:
    """A corpus whose files have been hashed.

    Attributes:
        key: its section's config key.
        corpus: its section.
        data: the section around it.
        root: folder that relative paths are resolved against.
        files: its files by config key.
    """

    key: str
    corpus: CorpusConfig
    data: DataConfig
    root: Path
    files: dict[str, FileState]

    @property
    def training(self) -> bool:
        return self.key == "data.train"

    @property
    def content(self) -> list[Any]:
        """All that decides which examples are read."""
        corpus = self.corpus
        fields = [corpus.source_field, corpus.target_field, corpus.references_field]
        # How a file is read goes by its name: packed or not, and which kind of records.
        suffixes = [Path(name).suffixes[-2:] for name in (corpus.path, corpus.source, corpus.target) if name]
        hashes = [state.sha256 for state in self.files.values()]
        return [hashes, suffixes, fields, self.data.encoding_errors]

    def examples(self) -> Iterator[Example]:
        """All examples, once more."""
        yield from read_examples(self.corpus, self.root, self.key, errors=self.data.encoding_errors)
        for state in self.files.values():
            state.check_unchanged()


def _open_splits(data: DataConfig, cache_root: Path) -> dict[str, _Split]:
    """All corpora by name: ``train``, ``valid``, and ``test.<name>`` each."""
    corpora = {"train": data.train, "valid": data.valid}
    corpora |= {f"test.{name}": corpus for name, corpus in data.test.items()}
    root = resolve_root(data.root)
    hashes = HashCache(cache_root / "hashes.json")
    return {name: _open_split(corpus, data, root, f"data.{name}", hashes) for name, corpus in corpora.items()}


def _open_split(corpus: CorpusConfig, data: DataConfig, root: Path, key: str, hashes: HashCache) -> _Split:
    paths = corpus_files(corpus, root, key)
    return _Split(key, corpus, data, root, {name: hashes.state(path, f"{name}={path}") for name, path in paths.items()})


def _fingerprints(splits: dict[str, _Split]) -> dict[str, str]:
    return {key: state.sha256 for split in splits.values() for key, state in split.files.items()}


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _settings(config: TokenizerConfig, *, multiline: bool) -> dict[str, Any]:
    """The settings that a tokenizer is made of; word vectors are the model's concern.

    Args:
        config: all settings.
        multiline: whether the training texts may hold line breaks; it matters only then what becomes of them.
    """
    settings = asdict(config)
    if not multiline:
        del settings["line_breaks"]
    del settings["source_vectors"], settings["target_vectors"]
    return settings


def _tokenizers_folder(train: _Split, config: TokenizerConfig, *, cache_root: Path, seed: int) -> Path:
    corpus = train.corpus
    settings = _settings(config, multiline=corpus.path is not None and is_jsonl(corpus.path))
    return cache_root / "tokenizers" / _digest([train.content, settings, seed])


def _tokenizers(folder: Path, splits: dict[str, _Split], config: TokenizerConfig, *, seed: int, log: Log) -> Tokenizers:
    train = splits["train"]

    def build(partial: Path) -> None:
        for split in splits.values():
            if not split.training:  # what is wrong with the other files is said before minutes of training
                deque(split.examples(), maxlen=0)
        log(f"Training the tokenizer: {config.kind.value}, at most {config.vocab_size:,} tokens.")
        made = train_tokenizers(
            lambda: (example.source for example in train.examples()),
            lambda: (example.target for example in train.examples()),
            config,
            seed=seed,
        )
        made.save(partial)

    build_once(folder, build, complete=_holds_tokenizers, log=log)
    return load_tokenizers(folder)


def _holds_tokenizers(folder: Path) -> bool:
    try:
        load_tokenizers(folder)
    except UserError:  # missing or damaged: it is only a cache, so it is made again
        return False
    return True


def _store_folder(split: _Split, tokenizers: Tokenizers, root: Path) -> Path:
    data = split.data
    settings: list[Any] = [_ENCODING_VERSION, data.max_source_length, data.max_target_length]
    if split.training:
        settings += [getattr(data, name) for name in _TRAIN_ONLY]
    return root / _digest([split.content, settings, tokenizers.fingerprint()])


def _store(split: _Split, tokenizers: Tokenizers, root: Path, *, log: Log) -> TokenStore:
    folder = _store_folder(split, tokenizers, root)

    def build(partial: Path) -> None:
        log(f"Encoding {split.key}.")
        write_store(partial, split.examples(), tokenizers, split.data, training=split.training)

    build_once(folder, build, complete=lambda made: is_store(made, at_once=TokenStore.READ_AT_ONCE), log=log)
    try:
        return TokenStore(folder)
    except DamagedStoreError:  # one that was too large to be read first
        build_once(folder, build, complete=is_store, log=log)
        return TokenStore(folder)
