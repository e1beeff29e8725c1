"""Writes the two demo corpora: translation (plain aligned files) and summarization (JSON lines).

    python scripts/corpora/make_demo_corpora.py --output data
    python scripts/corpora/make_demo_corpora.py --task translation --pairs 2000000 --output /tmp/large

The same seed writes the same bytes. A hash of the target assigns each example to a split, so that no text of the
validation and test sets, on either side, is in the training set, whatever its size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from atomic_files import text_files
from demo import summarization, translation

SPLITS = ("train", "valid", "test")
_MAX_RECENT = 200_000  # drop repeats among this many recent examples only, to bound memory
_FINGERPRINT_BYTES = 8

Example = TypeVar("Example", bound=tuple[Any, ...])  # source, target and any further fields


class RecentlySeen:
    """The set of the `limit` latest texts, as short hashes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def add(self, text: str) -> bool:
        """Adds a text; returns whether it is new."""
        key = hashlib.blake2b(text.encode(), digest_size=_FINGERPRINT_BYTES).digest()
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True


def split_of(text: str) -> str:
    """Returns the split of a target text: 1/8 test, 1/8 validation, the rest training."""
    bucket = hashlib.blake2b(text.encode(), digest_size=1).digest()[0]
    return "test" if bucket < 32 else "valid" if bucket < 64 else "train"


def distinct(examples: Iterator[Example]) -> Iterator[tuple[str, Example]]:
    """Yields (split, example), without recent repeats of either side."""
    sources, targets = RecentlySeen(_MAX_RECENT), RecentlySeen(_MAX_RECENT)
    for example in examples:
        source, target = example[:2]
        if sources.add(source) and targets.add(target):
            yield split_of(target), example


def _words(text: str) -> list[str]:
    return text.strip(".?").replace(",", " ").replace(".", " ").split()


def _in_vocabulary(text: str, vocabulary: set[str]) -> bool:
    """Whether each word is in the vocabulary or a number in digits."""
    return all(word in vocabulary or any(c.isdigit() for c in word) for word in _words(text))


def write_translation(folder: Path, seed: int, train: int, held_out: int) -> None:
    """Writes the parallel corpus to {train,valid,test}.{en,de}; held-out sets use words of the training set only."""
    stream = distinct(translation.pairs(seed))
    vocabulary = set(translation.OPEN_CLASS)  # names and numbers: held-out sets may have others than the training set
    candidates: dict[str, list[tuple[str, str]]] = {"valid": [], "test": []}
    written = 0
    with text_files([folder / "train.en", folder / "train.de"]) as (english, german):
        for split, (source, target) in stream:
            if split != "train":
                # Collect more than needed: some contain a word that the training set lacks.
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
        pairs = [*found, *islice(more, max(0, 2 * held_out - len(found)))]
        known = (pair for pair in pairs if all(_in_vocabulary(text, vocabulary) for text in pair))
        with text_files([folder / f"{split}.en", folder / f"{split}.de"]) as (english, german):
            for source, target in islice(known, held_out):
                english.write(source + "\n")
                german.write(target + "\n")


def write_summarization(folder: Path, seed: int, train: int, held_out: int) -> None:
    """Writes the reports to {train,valid,test}.jsonl[.gz]: id, document, summary and, if held out, facts."""
    names = ("train.jsonl.gz", "valid.jsonl", "test.jsonl")
    sizes = {"train": train, "valid": held_out, "test": held_out}
    counts = dict.fromkeys(SPLITS, 0)
    with text_files([folder / name for name in names]) as opened:
        files = dict(zip(SPLITS, opened, strict=True))
        for split, report in distinct(summarization.reports(seed)):
            if counts[split] == sizes[split]:
                if counts == sizes:
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
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write the demo corpora.")
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
