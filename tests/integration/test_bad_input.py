"""Mistakes in what is given: exit code 2 and one message that names the key or the file."""

from pathlib import Path

import pytest

from seq2seq.cli.main import run_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("s", b"a b\nc d\ne f\n"), ("t", b"a b\nc d\ne f\n"), ("short", b"a b\nc d\n"),
        ("bad", b"a b\n\xff\xfe\nx\n"), ("empty", b""),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainer.max_step=4", ["trainer.max_step ", "trainer.max_steps?"]),
        ("trainer.max_steps=abc", ["trainer.max_steps=abc", "Integer"]),
        ("data.train.target=short", ["3 lines", "has 2"]),
        ("data.train.source=nope", ["data.train.source=nope", "no such file"]),
        ("data.train.source=bad", ["bad:2", "UTF-8"]),
        ("data.train.source=empty", ["empty"]),
        ("model.num_heads=3", ["model.d_model=256", "model.num_heads=3"]),
        ("model.coverage=true", ["model.coverage is a key of the gru family"]),
        ("tokenizer.vocab_size=100000", ["tokenizer.vocab_size=100000", "at most"]),
        ("tokenizer.vocab_size=10", ["tokenizer.vocab_size=10", "at least"]),
    ],
)
def test_a_mistake_ends_with_code_2_and_names_it(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, parts: list[str]
) -> None:
    files = ["data.train.source=s", "data.train.target=t", "data.valid.source=s", "data.valid.target=t", "name=bad"]
    key = override.partition("=")[0]
    assert run_command("train", [*(file for file in files if not file.startswith(key + "=")), override]) == 2
    errors = capsys.readouterr().err
    assert errors.count("seq2seq: error: ") == 1
    assert "Traceback" not in errors
    message = errors.partition("seq2seq: error: ")[2]
    assert all(part in message for part in parts), message


def test_a_folder_that_is_no_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("evaluate", [f"run={folder}"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
