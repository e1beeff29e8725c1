"""Subsampling of a large corpus, for statistics that need not be exact."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

from seq2seq.data.corpus import CorpusConfig, DataConfig, read_examples, resolve_root


def subsampled(data: DataConfig, folder: Path, *, every: int) -> DataConfig:
    """Writes every n-th training pair as JSON Lines and returns the same data section with that training set.

    Args:
        data: the section of the whole data.
        folder: receives the file.
        every: n.
    """
    root = resolve_root(data.root)
    path = folder.absolute() / "train.jsonl"
    examples = read_examples(data.train, root, "data.train", errors=data.encoding_errors)
    with path.open("w", encoding="utf-8") as file:
        for example in islice(examples, 0, None, every):
            file.write(json.dumps({"source": example.source, "target": example.target}) + "\n")
    return replace(data, train=CorpusConfig(path=str(path)))
