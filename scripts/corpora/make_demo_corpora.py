"""Write the two demonstration corpora: translation (plain aligned files) and summarisation (JSON lines).

    python scripts/corpora/make_demo_corpora.py --output data
    python scripts/corpora/make_demo_corpora.py --task translation --pairs 2000000 --output /tmp/large

The same seed writes the same bytes. Which split an example belongs to is decided by a hash of its target, so
that no text of the validation and test sets, on either side, is in the training set, however long it is.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

from demo import summarization, translation

SPLITS = ("train", "valid", "test")
_WINDOW = 200_000  # repeats are dropped among at most this many recent examples, so that memory stays flat
_FINGERPRINT_BYTES = 8

Example = TypeVar("Example", bound=tuple[Any, ...])  # source, target, and what else belongs to it


class RecentlySeen:
    """Remembers the latest texts by a short hash, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def add(self, text: str) -> bool:
        """Whether the text is new; remembers it."""
        key = hashlib.blake2b(text.encode(), digest_size=_FINGERPRINT_BYTES).digest()
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True


def split_of(text: str) -> str:
    """The split that a target text belongs to: 1/8 test, 1/8 validation, the rest training."""
    bucket = hashlib.blake2b(text.encode(), digest_size=1).digest()[0]
    return "test" if bucket < 32 else "valid" if bucket < 64 else "train"


def distinct(stream: Iterator[Example]) -> Iterator[tuple[str, Example]]:
    """The examples with the split of each, without recent repeats of either side."""
    sources, targets = RecentlySeen(_WINDOW), RecentlySeen(_WINDOW)
    for example in stream:
        source, target = example[:2]
        if sources.add(source) and targets.add(target):
            yield split_of(target), example


def _words(text: str) -> list[str]:
    return text.strip(".?").replace(",", " ").replace(".", " ").split()


def _known(text: str, vocabulary: set[str], open_class: frozenset[str]) -> bool:
    """Whether each word was seen in training or is of an open class: a name, a number in digits."""
    return all(word in vocabulary or word in open_class or any(c.isdigit() for c in word) for word in _words(text))


class AtomicText:
    """A UTF-8 text file, gzipped if its name says so, that appears under its name only when complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = self._temporary.open("wb")
        # no name and time in the gzip header: equal content is equal bytes
        self._inner = gzip.GzipFile("", "wb", 9, self._raw, 0) if self._path.suffix == ".gz" else self._raw
        self._text = io.TextIOWrapper(self._inner, encoding="utf-8", newline="\n")
        return self._text

    def __exit__(self, kind: object, *_: object) -> None:
        self._text.close()
        self._raw.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def write_translation(folder: Path, seed: int, train: int, held_out: int) -> None:
    """Streams the parallel corpus to {train,valid,test}.{en,de}; the held-out sets use trained words."""
    stream = distinct(translation.pairs(seed))
    vocabulary: set[str] = set()
    candidates: dict[str, list[tuple[str, str]]] = {"valid": [], "test": []}
    written = 0
    with ExitStack() as files:
        english, german = (files.enter_context(AtomicText(folder / f"train.{x}")) for x in ("en", "de"))
        for split, (source, target) in stream:
            if split != "train":
                # in reserve: some have a word that the training set happens to lack
                if len(candidates[split]) < 3 * held_out:
                    candidates[split].append((source, target))
                continue
            english.write(source + "\n")
            german.write(target + "\n")
            vocabulary.update(_words(source), _words(target))
            written += 1
            if written == train:
                break
    for split, found in candidates.items():
        more = (pair for other, pair in stream if other == split)
        kept = _take_known([*found, *islice(more, max(0, 2 * held_out - len(found)))], vocabulary, held_out)
        for language, side in (("en", 0), ("de", 1)):
            with AtomicText(folder / f"{split}.{language}") as file:
                file.writelines(pair[side] + "\n" for pair in kept)


def _take_known(found: list[tuple[str, str]], vocabulary: set[str], limit: int) -> list[tuple[str, str]]:
    open_class = translation.OPEN_CLASS
    known = (p for p in found if all(_known(text, vocabulary, open_class) for text in p))
    return list(islice(known, limit))


def write_summarization(folder: Path, seed: int, train: int, held_out: int) -> None:
    """Streams the reports to train.jsonl.gz, valid.jsonl and test.jsonl: id, document, summary and, held out, facts."""
    names = {"train": "train.jsonl.gz", "valid": "valid.jsonl", "test": "test.jsonl"}
    wanted = {"train": train, "valid": held_out, "test": held_out}
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        files = {s: stack.enter_context(AtomicText(folder / name)) for s, name in names.items()}
        for split, report in distinct(summarization.reports(seed)):
            if counts[split] == wanted[split]:
                if counts == wanted:
                    break
                continue
            record: dict[str, object] = {"id": f"{split}-{counts[split]}", **report._asdict()}
            if split == "train":
                del record["facts"]
            files[split].write(json.dumps(record, ensure_ascii=False) + "\n")
            counts[split] += 1


TASKS: dict[str, tuple[Callable[[Path, int, int, int], None], int, int]] = {
    "translation": (write_translation, 4500, 300),
    "summarization": (write_summarization, 7000, 400),
}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the demonstration corpora.")
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder to write demo_<task>/ into")
    parser.add_argument("--task", choices=[*TASKS, "all"], default="all")
    parser.add_argument("--pairs", type=int, help="training examples (default: 4500 pairs, 7000 reports)")
    parser.add_argument("--held-out", type=int, help="examples of each of valid and test (default: 300, 400)")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args(arguments)
    for size in (options.pairs, options.held_out):
        if size is not None and size < 1:
            parser.error("--pairs and --held-out must be at least 1")
    for task, (write, train, held_out) in TASKS.items():
        if options.task in (task, "all"):
            folder = options.output / f"demo_{task}"
            write(folder, options.seed, options.pairs or train, options.held_out or held_out)
            print(f"wrote {folder}")


if __name__ == "__main__":
    main()
