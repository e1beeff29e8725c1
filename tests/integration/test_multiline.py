"""Documents of several lines, from JSONL to the model and back."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]
DOCUMENTS = ["one two\nthree", "four\r\n\r\n\r\nfive", "six seven", "\none\n", "\n"]
ARROW = "↵"


@pytest.fixture(scope="module")
def run(home: Path, seq2seq: Command, overrides: tuple[str, ...]) -> Path:
    """A run that has learnt to answer everything with the same two lines."""
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    for split, size in (("train", 120), ("valid", 12)):
        records = [
            {"body": f"{words[i % 7]} {words[i % 5]}\n{words[i % 3]}\n\n{words[i % 4]}", "summary": "yes\nno"}
            for i in range(size)
        ]
        records[0]["body"] = "seven " * 40  # the one that is too long
        (home / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = [option for option in overrides if not option.startswith(("data.", "+data.", "trainer.max_steps"))]
    files = [f"data.{split}.{key}" for split in ("train", "valid") for key in (
        f"path={split}.jsonl", "source_field=body", "target_field=summary")]  # fmt: skip
    done = seq2seq(
        "train", "name=lines", "data=records", *files, *settings, "trainer.max_steps=90",
        "data.max_source_length=100", "data.on_long=truncate",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cut = len("seven " * 40) - 1 + 1 - 99  # a character a token, and the mark of the first word
    share = cut / _characters(home / "train.jsonl")
    assert f"1 truncated to 100 (0.8% of examples, {share:.1%} of tokens cut)" in done.stderr
    assert json.loads((home / "outputs/lines/data_report.json").read_text())["train"]["source"]["cut_tokens"] == cut
    return home / "outputs/lines"


def _characters(path: Path) -> int:
    """Tokens of the sources of a file: each line's characters and the mark of its first word, and the line breaks."""
    texts = [json.loads(line)["body"].strip() for line in path.read_text().splitlines()]
    return sum(len(text) + sum(line != "" for line in text.split("\n")) for text in texts)


def test_line_breaks_reach_the_model_and_come_back(run: Path, tmp_path: Path, seq2seq: Command) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps({"body": text}) + "\n\n" for text in DOCUMENTS).encode()))
    done = seq2seq("generate", "run=outputs/lines", f"input='{path}'", "format=jsonl", "alignments=true")
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    seen = ["".join(record["nbest"][0]["source_tokens"]).removesuffix("</s>") for record in records]
    assert seen == ["▁one▁two↵▁three", "▁four↵↵▁five", "▁six▁seven", "▁one", ""]
    assert [record["text"] for record in records] == ["yes\nno"] * 4 + [""]
    assert ARROW in records[0]["nbest"][0]["tokens"]
    plain = seq2seq("generate", "run=outputs/lines", f"input='{path}'")
    assert plain.stdout == "yes no\n" * 4 + "\n"
    assert "truncated" not in done.stderr + plain.stderr


def test_long_sources_are_counted_once_at_the_end(run: Path, tmp_path: Path, seq2seq: Command) -> None:
    path = tmp_path / "in.jsonl"
    texts = ["one\n" * 60, "two", "three\n" * 90, "\n" * 500]
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    done = seq2seq("generate", "run=outputs/lines", f"input='{path}'", "search.batch_size=1")
    assert done.stdout.count("\n") == 4
    assert done.stderr.count("truncated") == 1
    assert "sources longer than data.max_source_length=100 tokens, which were truncated: 2" in done.stderr


def test_the_run_says_how_it_treats_line_breaks(run: Path) -> None:
    (entry,) = json.loads((run / "tokenizer/tokenizer.json").read_text())["tokenizers"].values()
    assert entry["line_breaks"] == "tidy"
