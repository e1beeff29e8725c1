"""``overwrite=true`` loses no run: one that cannot replace the old one leaves it, or brings it back."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import TrainRun
from dying import Change, train
from run_contents import contents, differences

from seq2seq.errors import TrainingError, UserError
from seq2seq.runs.folder import require_run
from seq2seq.training.step import TrainStep
from seq2seq.training.trainer import Trainer

SHORT = ("trainer.max_steps=6", "trainer.save_every=3", "trainer.eval_every=3", "search=greedy", "search.max_length=8")
OTHER = (*SHORT, "seed=7", "overwrite=true")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, train_run: TrainRun) -> Path:
    """An output root with a complete run."""
    root = tmp_path_factory.mktemp("finished")
    train_run(root, *SHORT)
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "outputs", symlinks=True))


def is_back(root: Path, finished: Path) -> bool:
    return not differences(contents(finished / "run"), contents(root / "run"))


@pytest.mark.parametrize(
    "mistake",
    [
        ("data.train.source=trian.en",), ("tokenizer=bpe", "tokenizer.vocab_size=30000"),
        ("trainer.init_from=no/such/run",), ("data.valid.target=short.txt",), ("data.test.back.source=absent.txt",),
        ("data.train.target=latin1.txt",), ("trainer.init_from=RUN",), ("trainer.init_from=RUN/checkpoints/best",),
        ("model=gru_tiny", "model.d_model=32", "trainer.init_from=OTHER"),
    ],
)  # fmt: skip
def test_a_mistake_leaves_the_run(
    root: Path, finished: Path, tmp_path: Path, train_run: TrainRun, mistake: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("a\n", encoding="utf-8")
    Path("latin1.txt").write_bytes(b"caf\xe9\n" * 150)
    places = {"RUN": str(root / "run"), "OTHER": str(finished / "run")}
    overrides = []
    for override in mistake:
        key, _, value = override.partition("=")
        first, slash, rest = value.partition("/")
        overrides.append(f"{key}={places.get(first, first)}{slash}{rest}")
    with pytest.raises(UserError):
        train_run(root, *OTHER, *overrides)
    assert is_back(root, finished)


def test_a_failure_before_the_first_checkpoint_brings_the_run_back(
    root: Path, finished: Path, train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        assert not (root / "run" / "results.json").exists(), "set aside"
        raise TrainingError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "run", run)
        with pytest.raises(TrainingError, match="no memory"):
            train_run(root, *OTHER)
    assert is_back(root, finished)
    assert "the earlier run is back" in train_run.at(root).log
    average = Trainer.average

    def averaged(trainer: Trainer) -> None:
        assert not list((root / "run").glob(".earlier*")), "deleted when the first checkpoint was there"
        average(trainer)

    monkeypatch.setattr(Trainer, "average", averaged)
    replaced = train_run(root, *OTHER)
    assert replaced.results["train"]["steps"] == 6
    assert not list((root / "run").glob(".earlier*"))
    assert "seed: 7" in (root / "run" / "config.yaml").read_text(encoding="utf-8")


def test_a_disk_that_fills_while_both_stand_brings_the_run_back(
    root: Path, finished: Path, train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: object, **__: object) -> None:
        assert list((root / "run").glob(".earlier/checkpoints")), "set aside"
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr("seq2seq.runs.checkpoint_store.write_checkpoint", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        train_run(root, *OTHER)
    assert is_back(root, finished)


@pytest.mark.slow
def test_two_ranks_that_die_before_a_checkpoint_bring_the_run_back(
    root: Path, finished: Path, train_run: TrainRun
) -> None:
    """And the next try of two ranks replaces it."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "seq2seq", "train"]
    never = (
        "trainer.max_steps=100000",
        "trainer.save_every=100000",
        "trainer.eval_every=100000",
        "trainer.log_every=1",
    )
    command = [sys.executable, *torchrun, *train_run.arguments(root, *OTHER)]
    process = subprocess.Popen([*command, *never], start_new_session=True)
    deadline = time.monotonic() + 100
    while not (root / "run" / ".earlier").exists() or not (root / "run" / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for rank in psutil.process_iter(["cmdline"]):  # torchrun starts its ranks in sessions of their own
        if f"output_root={root}" in (rank.info["cmdline"] or []):
            rank.kill()
            rank.wait()
    assert not (root / "run" / "results.json").exists()
    subprocess.run([*command, "trainer.max_steps=5"], check=True, timeout=200)
    assert train_run.at(root).state()["step"] == 5
    assert "the earlier run is back" not in train_run.at(root).log.rpartition("training on cpu")[2]
    assert not list((root / "run").glob(".earlier*"))


@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_one_whole_run_is_there_after_a_kill(
    root: Path, finished: Path, train_run: TrainRun, tmp_path: Path, every: int
) -> None:
    """Killed before any change to the run folder: the old run, or the new one with a checkpoint to resume from."""
    arguments = train_run.arguments(root, *OTHER)
    number, code, old = 1, -9, 0
    while code == -9:
        place = tmp_path / str(number)
        shutil.copytree(finished, place, symlinks=True)
        code = train(place, arguments, Change(r" run/", number))
        folder = require_run(str(place / "run"))
        assert folder.holds_run()
        if is_back(place, finished):
            old += 1
        else:
            assert "seed: 7" in folder.config.read_text(encoding="utf-8")
            again = [argument for argument in arguments if argument != "overwrite=true"]
            assert train(place, again) == 0, (place / "messages.txt").read_text(encoding="utf-8")[-2000:]
        assert not list((place / "run").glob(".earlier*"))
        number += every
    assert code == 0
    assert old >= 20 // every


def test_a_first_try_without_a_checkpoint_holds_no_run(
    tmp_path: Path, train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corrected command takes the folder over, and keeps the log."""

    def run(*_: object, **__: object) -> None:
        raise TrainingError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "run", run)
        with pytest.raises(TrainingError):
            train_run(tmp_path, *SHORT, "tokenizer.joint=false", "model.tie_embeddings=decoder")
    assert (tmp_path / "run" / "config.yaml").exists()
    corrected = train_run(tmp_path, *SHORT, "seed=3")
    assert corrected.results["complete"]
    assert corrected.log.count("training on cpu") == 2
    assert sorted(path.name for path in (tmp_path / "run" / "tokenizer").iterdir()) == ["joint.model", "tokenizer.json"]
