"""Packed TSV, word vectors and blank lines, from the command to the outputs."""

import gzip
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess


def test_words_with_vectors_from_packed_tsv(
    home: Path, tmp_path: Path, seq2seq: Callable[..., CompletedProcess[str]], overrides: tuple[str, ...]
) -> None:
    for split in ("train", "valid"):
        columns = [(home / f"{split}.{side}").read_text(encoding="utf-8").splitlines() for side in ("de", "en")]
        rows = "".join(f"{words}\t{digits}\n" for words, digits in zip(*columns, strict=True))
        (tmp_path / f"{split}.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "blank.src").write_text("one two\n\n \nthree\n", encoding="utf-8")
    (tmp_path / "blank.tgt").write_text("12\n\n5\n\n", encoding="utf-8")
    words = ["one", "two", "three", "unheard-of"]
    (tmp_path / "words.vec").write_text("".join(f"{word} {'0.5 ' * 16}\n" for word in words), encoding="utf-8")
    settings = [option for option in overrides if not option.startswith(("tokenizer", "data.", "+data."))]
    vectors = f"tokenizer.source_vectors='{tmp_path / 'words.vec'}'"
    done = seq2seq(
        "train", "name=words", f"data.root='{tmp_path}'",
        "data.train.path=train.tsv.gz", "data.valid.path=valid.tsv.gz",
        "+data.test.blank.source=blank.src", "+data.test.blank.target=blank.tgt",
        "tokenizer=word", "model.tie_embeddings=decoder", vectors, *settings, "trainer.max_steps=5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "source vectors: 3 of 14 tokens found" in done.stderr  # ten digits, spelt out, and four special tokens
    outputs = (home / "outputs/words/generations/blank.txt").read_text(encoding="utf-8").split("\n")
    assert len(outputs) == 4 + 1
    assert outputs[1] == outputs[2] == ""
    given = seq2seq("generate", "run=outputs/words", f"input='{tmp_path / 'blank.src'}'")
    assert given.stdout.split("\n") == outputs
