"""`seq2seq check` by the real command: what it finds, how it ends, and that it leaves nothing behind."""

import fcntl
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seq2seq.cli import commands
from seq2seq.cli.train import run as train
from seq2seq.config import saved
from seq2seq.config.schema import Config
from seq2seq.errors import Interrupted, UserError
from seq2seq.models.gru_config import GRUConfig
from seq2seq.preflight.check import folder_state
from seq2seq.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "data" / "demo_translation"


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str | None]:
    """The report, and the message of the error that the command ends with."""
    message = None
    try:
        commands.run("check", [*arguments, "format=json"])
    except UserError as error:
        message = str(error)
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert values["ready"] == (message is None)
    return values, message


def test_a_clean_run_is_ready_and_nothing_is_left_but_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ("experiment=demo_translation", f"output_root={tmp_path}", "trainer.threads=1", "trainer.batch_tokens=256")
    values, _ = checked(capsys, *demo)
    assert values["diagnostics"] == []
    assert values["verdict"] == f"ready to train: seq2seq train {' '.join(demo)}"
    assert [entry.name for entry in tmp_path.iterdir()] == [".cache"]
    assert {entry.name for entry in (tmp_path / ".cache").iterdir()} == {"hashes.json", "stores", "tokenizers"}
    assert values["data"]["train"]["kept"] == values["quality"]["train"]["pairs"] == 4500
    speed, memory = values["dry_run"]["speed"], values["dry_run"]["memory"]
    assert all(examples * max(source, target) <= 256 for examples, source, target in memory["batches"])
    assert 100 * 2**20 < memory["needed_bytes"] < 4 * 2**30
    parameters = values["dry_run"]["parameters"]
    assert speed["checkpoint_bytes"] == pytest.approx(3 * 4 * parameters, rel=0.01)  # weights and Adam's two moments
    assert values["budget"]["epochs"] == pytest.approx(1000 / speed["steps_per_epoch"])


def test_all_errors_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.de").write_text("eine Zeile\n")
    (tmp_path / "file").touch()
    values, message = checked(
        capsys,
        f"data.root={DEMO}", "data.train.source=train.en", "data.train.target=train.de",
        "data.valid.source=valid.de", "data.valid.target=valid.en", f"output_root={tmp_path}/file", "name=x",
        "+data.test.gone.source=gone.en", "+data.test.gone.target=gone.de",
        "+data.test.odd.source=test.en", f"+data.test.odd.target={tmp_path}/short.de", "search.top_k=7",
    )  # fmt: skip
    errors = {each["key"]: each["message"] for each in values["diagnostics"] if each["severity"] == "error"}
    assert errors.keys() == {
        "search.top_k",
        "output_root",
        "cache_root",
        "data.test.gone",
        "data.test.odd",
        "data.valid",
    }
    assert "no such file" in errors["data.test.gone"]
    assert "300 lines" in errors["data.test.odd"]
    assert "swapped" in errors["data.valid"]
    assert values["dry_run"] is None
    assert message is not None
    assert message.startswith("not ready to train: output_root: ")
    assert message.endswith("(and 5 more errors)")


def test_an_empty_training_set_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    values, _ = checked(
        capsys,
        f"output_root={tmp_path}", "name=x",
        f"data.train.source={tmp_path}/empty", f"data.train.target={tmp_path}/empty",
        f"data.valid.source={DEMO}/valid.en", f"data.valid.target={DEMO}/valid.de",
    )  # fmt: skip
    (diagnostic,) = values["diagnostics"]
    assert diagnostic["key"] == "data.train"
    assert "without a single example" in diagnostic["message"]
    assert not (tmp_path / "x").exists()


def test_pairs_that_are_all_too_long_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, message = checked(
        capsys, "experiment=demo_translation", f"output_root={tmp_path}", "data.max_source_length=2"
    )
    assert values["data"]["train"]["kept"] == 0
    assert message is not None
    assert "data.train: none of 4,500 pairs is left" in message


def test_what_is_in_the_run_folder_is_told(tmp_path: Path) -> None:
    config = Config(name="x", model=GRUConfig())
    folder = RunFolder(tmp_path)
    assert folder_state(config, folder) == ("new", False)
    folder.config.write_text(saved.to_yaml(config))
    other = Config(name="x", model=GRUConfig(), seed=2)
    assert folder_state(other, folder) == ("new", False), "without a checkpoint it holds no run"
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    words, resumes = folder_state(config, folder)
    assert "would resume" in words
    assert resumes
    with pytest.raises(UserError, match="seed: 1 there, 2 now"):
        folder_state(other, folder)
    assert "would replace" in folder_state(replace(other, overwrite=True), folder)[0]
    folder.config.unlink()
    with pytest.raises(UserError, match=r"checkpoints but no config\.yaml"):
        folder_state(config, folder)
    (folder.checkpoints / "step-00000001").rmdir()
    folder.checkpoints.rmdir()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"not a run folder \(it has thesis.tex"):
        folder_state(replace(other, overwrite=True), folder)
    with (tmp_path / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"):
            folder_state(config, folder)


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """Overrides of a run of seconds in words, on its own corpus."""
    for side in ("source", "target"):
        (tmp_path / side).write_text("".join(f"{side} {number % 7} {number % 11}\n" for number in range(60)))
    files = [f"data.{split}.{side}={side}" for split in ("train", "valid") for side in ("source", "target")]
    return (
        *files, f"data.root={tmp_path}", f"output_root={tmp_path}", "name=x", "tokenizer=word", "model=gru_tiny",
        "model.tie_embeddings=decoder", "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32",
        "optim.warmup_steps=1", "trainer.max_steps=6", "trainer.eval_examples=0", "metrics.names=[bleu]",
    )  # fmt: skip


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only error of a report."""
    values, _ = checked(capsys, *arguments)
    (error,) = (diagnostic for diagnostic in values["diagnostics"] if diagnostic["severity"] == "error")
    return f"{error['key']}: {error['message']}"


@pytest.mark.slow
def test_a_run_that_training_would_refuse_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: tuple[str, ...]
) -> None:
    with pytest.raises(Interrupted):
        train([*small, "trainer.stop_after_minutes=1e-9"])
    values, _ = checked(capsys, *small)
    assert "would resume" in values["folder"]
    text = (tmp_path / "source").read_text(encoding="utf-8")
    (tmp_path / "source").write_text(text.replace("source 3", "source 4", 1), encoding="utf-8")
    assert "on other content: data.train.source, data.valid.source, tokenizer" in error_of(capsys, *small)
    (tmp_path / "source").write_text(text, encoding="utf-8")
    for path in (tmp_path / "x/checkpoints").glob("step-*/model.safetensors"):
        os.truncate(path, 10)
    assert error_of(capsys, *small).startswith("name: no valid checkpoint is left")


@pytest.mark.slow
def test_first_weights_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: tuple[str, ...]
) -> None:
    assert "neither a run folder" in error_of(capsys, *small, f"trainer.init_from={tmp_path}/gone")
    (tmp_path / "vectors").write_text("source 1 2 3\n")
    vectors = f"tokenizer.source_vectors={tmp_path}/vectors"
    assert error_of(capsys, *small, vectors).startswith("model: ")
    train([*small, "trainer.max_steps=1", "name=base"])
    base = f"trainer.init_from={tmp_path}/base"
    assert "does not fit the model section" in error_of(capsys, *small, base, "model.d_model=32")
    capsys.readouterr()
    assert "tokenizer.kind=unigram cannot take effect" in error_of(capsys, *small, base, "tokenizer=unigram")
    capsys.readouterr()
    values, _ = checked(capsys, *small, base)
    assert values["ready"]


def run_limited(tmp_path: Path, *arguments: str, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seq2seq", "check", "experiment=demo_translation", f"output_root={tmp_path}"]
    return subprocess.run(
        [*command, "trainer.threads=1", "trainer.device=cpu", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_model_that_does_not_fit_into_memory_is_told(tmp_path: Path) -> None:
    done = run_limited(tmp_path, "model.d_model=8192", limit=6 * 10**9)
    assert done.returncode == 2, done.stderr
    assert "out of memory" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo_translation").exists()


@pytest.mark.slow
def test_a_large_corpus_is_subsampled_and_its_counts_are_of_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("en", "de"):
        lines = (DEMO / f"train.{side}").read_text(encoding="utf-8").splitlines()
        with (tmp_path / f"big.{side}").open("w", encoding="utf-8") as file:
            file.writelines(f"{line} {copy}\n" for copy in range(50) for line in lines)
    arguments = (
        "experiment=demo_translation", f"output_root={tmp_path}/out", "trainer.threads=1",
        f"data.train.source={tmp_path}/big.en", f"data.train.target={tmp_path}/big.de",
    )  # fmt: skip
    values, _ = checked(capsys, *arguments)
    assert values["subsampled"] == 3
    assert values["quality"]["train"]["pairs"] == 225_000
    assert values["data"]["train"]["read"] == 75_000
    found = [(diagnostic["severity"], diagnostic["key"]) for diagnostic in values["diagnostics"]]
    assert found == [("note", "data.train"), ("note", "trainer.max_steps")]  # subsampled, and less than an epoch
    tokens = values["dry_run"]["speed"]["steps_per_epoch"] * values["dry_run"]["speed"]["target_tokens"]
    kept = values["data"]["train"]["target"]
    assert tokens == pytest.approx(3 * (kept["kept_tokens"] + values["data"]["train"]["kept"]), rel=0.01)
