"""What makes two runs differ, and what does not; and what growth a soak test reports."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soak
from run_contents import contents, differences

from seq2seq.runs.tracking import Tracker


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two logged steps and one checkpoint."""
    folder = tmp_path / "run"
    step = folder / "checkpoints" / "step-00000002"
    step.mkdir(parents=True)
    (step / "model.safetensors").write_bytes(b"weights")
    (step / "state.json").write_text('{"step": 2, "seconds": 3.5, "step_seconds": 3.0}')
    (step.parent / "last").symlink_to(step.name)
    (folder / "train.log").write_text("12:00 step 2")
    tracker = Tracker(folder)
    tracker.hparams({"seed": 1}, ["valid/loss"])
    for number in (1, 2):
        tracker.log(number, {"train/loss": 1.0 / number, "perf/target_tokens_per_sec": 100.0})
    tracker.image(2, "attention/0", np.zeros((2, 2, 3), dtype=np.uint8))
    tracker.text(2, "samples", "a text")
    tracker.close()
    return folder


def rewrite(run: Path, name: str, old: str, new: str) -> None:
    path = run / name
    path.write_text(path.read_text().replace(old, new))


def log_again(run: Path, record: Callable[[Tracker], None]) -> None:
    tracker = Tracker(run, resume_step=2)
    record(tracker)
    tracker.close()


def test_figures_of_time_and_messages_may_differ(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other, symlinks=True)
    rewrite(other, "checkpoints/step-00000002/state.json", "3.", "4.")
    rewrite(other, "train.log", "12:00", "13:00 resumed\n13:01")
    lines = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    later = [line | {"wall_time": line["wall_time"] + 5} for line in lines if line["tag"].startswith("train/")]
    (other / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in later))
    log_again(other, lambda tracker: tracker.log(2, {"system/peak_memory_mb": 5.0}))
    assert differences(contents(run), contents(other)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: (run / "checkpoints/step-00000002/model.safetensors").write_bytes(b"other"), "model.safetensors"),
        (lambda run: rewrite(run, "checkpoints/step-00000002/state.json", '"step": 2', '"step": 3'), "state.json"),
        (lambda run: (run / "checkpoints/last").unlink(), "checkpoints/last is missing"),
        (lambda run: (run / "checkpoints/step-00000003.tmp-1").mkdir(), "step-00000003.tmp-1 should not be there"),
        (lambda run: (run / "tensorboard/.events.1").touch(), ".events.1 should not be there"),
        (lambda run: rewrite(run, "metrics.jsonl", "1.0", "1.5"), "metrics.jsonl: entry 0"),
        (lambda run: log_again(run, lambda tracker: tracker.log(3, {"train/loss": 0.1})), "train/loss entry 2"),
        (lambda run: log_again(run, lambda tracker: tracker.text(3, "samples", "more")), "tensorboard: samples"),
    ],
)  # fmt: skip
def test_what_matters_is_told(run: Path, change: Callable[[Path], object], told: str) -> None:
    before = contents(run)
    change(run)
    assert told in "\n".join(differences(before, contents(run)))


def sample(step: int, **values: float) -> soak.Sample:
    usual = {"resident": 400.0, "memory": 300.0, "files": 20, "threads": 4, "checkpoints": 2, "disk": 1.0}
    return soak.Sample(step, **(usual | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({}, None),
        ({"memory": 314.0}, None),
        ({"memory": 316.0}, "memory grew"),
        ({"files": 21}, "files grew"),
        ({"threads": 5}, "threads grew"),
        ({"checkpoints": 4}, "4 checkpoints"),
    ],
)
def test_a_soak_test_reports_growth(last: dict[str, float], told: str | None) -> None:
    early = sample(500, memory=200.0, files=10)
    samples = [early, *(sample(step) for step in range(10_500, 40_500, 500))]
    samples += [sample(step, **last) for step in range(40_500, 50_500, 500)]
    growth = soak.find_growth(soak.group_by_interval(samples, 400_000))
    assert growth == [] if told is None else told in growth[0]
