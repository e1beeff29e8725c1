import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from seq2seq.config.schema import Config
from seq2seq.data.corpus import Example
from seq2seq.data.report import SideReport, SplitReport
from seq2seq.errors import TrainingError
from seq2seq.preflight.corpus_quality import measure, survey
from seq2seq.preflight.diagnostics import Diagnostic, Severity
from seq2seq.preflight.dry_run import DryRun, MemoryEstimate, Speed, dry_run
from seq2seq.preflight.report import PreflightReport, budget, resource_diagnostics, to_dict, to_text
from seq2seq.training.config import Averaging, TrainerConfig

GIB = 2**30
SPEED = Speed(
    steps=10, step_seconds=0.5, target_tokens=1000.0, steps_per_epoch=200,
    evaluation_seconds=30.0, save_seconds=2.0, checkpoint_bytes=100 * 2**20,
)  # fmt: skip
DRY_RUN = DryRun(
    123_456, MemoryEstimate([(8, 50, 60)], needed_bytes=GIB, free_bytes=4 * GIB, measured=True, splits=0), SPEED
)
TRAINER = TrainerConfig(max_steps=1000, eval_every=100, save_every=50)


def report(**changes: Any) -> PreflightReport:
    side = SideReport(limit=50, tokens=90, lengths={"median": 9, "p95": 20, "p99": 30, "longest": 40})
    environment = {
        "version": "1.0", "python": "3.11", "platform": "Linux", "packages": {"torch": "2.13"}, "device": "cpu",
        "precision": "fp32", "gpus": [{"name": "GPU", "memory": 8 * GIB, "free": 7 * GIB}],
    }  # fmt: skip
    values = {
        "name": "run",
        "command": "seq2seq train name=run",
        "folder": "outputs/run: new",
        "environment": environment,
        "free_disk": 100 * GIB,
        "splits": {"train": SplitReport(10, 9, {"too long": 1}, side, side)},
        "qualities": measure({"train": survey([Example("a", "b", ("b",))] * 10)}),
        "dry_run": DRY_RUN,
    }
    return PreflightReport(**{**values, **changes})


@pytest.mark.parametrize(
    ("limits", "steps", "seconds"),
    [
        ({"max_steps": 1000}, 1000, 1000 * (0.5 + 30 / 100 + 2 / 50)),
        ({"max_steps": 1000, "max_epochs": 2}, 400, 400 * 0.84),
        ({"max_steps": None, "max_epochs": 3}, 600, 600 * 0.84),
        ({"max_steps": 1000, "max_minutes": 5.0}, 1000, 300),
        ({"max_steps": 1000, "max_minutes": 50.0}, 1000, 840),
        ({"max_steps": None, "max_minutes": 5.0}, None, 300),
        ({"max_steps": None, "patience": 5}, None, None),
    ],
)
def test_the_budget_is_what_the_limits_allow(limits: dict[str, Any], steps: int | None, seconds: float | None) -> None:
    plan = budget(replace(TRAINER, **limits), SPEED)
    assert plan.steps == steps
    assert plan.epochs == (None if steps is None else steps / 200)
    assert plan.hours == (None if seconds is None else pytest.approx(seconds / 3600))


def test_the_disk_holds_the_checkpoints_that_are_kept_and_the_one_being_written() -> None:
    quiet = replace(TRAINER, attention_images=0, log_every=10**6)
    assert budget(quiet, SPEED).disk_bytes == 3 * SPEED.checkpoint_bytes
    assert budget(replace(quiet, keep_last=3, keep_best=2), SPEED).disk_bytes == 6 * SPEED.checkpoint_bytes
    averaged = replace(quiet, average=Averaging.last, average_checkpoints=5)
    assert budget(averaged, SPEED).disk_bytes == (5 + 1 + 1 + 1) * SPEED.checkpoint_bytes


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({}, []),
        ({"needed_bytes": 5 * GIB, "measured": False}, [Severity.error]),
        ({"needed_bytes": 3.9 * GIB}, [Severity.warning]),
        ({"splits": 2}, [Severity.warning]),
    ],
)
def test_memory_is_compared_with_what_is_there(memory: dict[str, Any], expected: list[Severity]) -> None:
    dry_run = replace(DRY_RUN, memory=replace(DRY_RUN.memory, **memory))
    assert [f.severity for f in resource_diagnostics(TRAINER, report(dry_run=dry_run))] == expected


@pytest.mark.parametrize(
    ("free", "cached", "expected"),
    [
        (300 * 2**20, 0, [Severity.error]),
        (350 * 2**20, 0, [Severity.warning]),
        (GIB, GIB, [Severity.error]),
        (GIB, 0, []),
    ],
)
def test_disk_is_compared_with_what_is_there(free: int, cached: int, expected: list[Severity]) -> None:
    found = resource_diagnostics(TRAINER, report(free_disk=free, cached_bytes=cached))
    assert [f.severity for f in found] == expected


def test_the_text_is_narrow_plain_and_ends_with_the_verdict() -> None:
    notes = [Diagnostic(Severity.note, "trainer.a", "word " * 60), Diagnostic(Severity.warning, "data.b", "b", "fix")]
    shown = to_text(report(diagnostics=notes), TRAINER)
    assert shown.isascii()
    assert "9 of 10 pairs (dropped: 1 too long)" in shown
    assert max(map(len, shown.split("\n"))) <= 118
    assert len(shown.split("\n")) < 30
    assert shown.index("data.b: b -> fix") < shown.index("trainer.a")  # by severity
    assert shown.endswith("ready to train: seq2seq train name=run")
    broken = report(diagnostics=[*notes, Diagnostic(Severity.error, "data.c", "is bad", "repair it")])
    assert to_text(broken, TRAINER).endswith("not ready to train: fix the errors above first")
    assert broken.verdict() == "not ready to train: data.c: is bad -> repair it"


def test_a_report_that_broke_off_is_shown_too() -> None:
    early = report(
        splits={}, qualities={}, dry_run=None, diagnostics=[Diagnostic(Severity.error, "data", "data.x is gone")]
    )
    assert "1 error" in to_text(early, TRAINER)
    assert to_dict(early, TRAINER)["budget"] is None


def test_json_holds_all_values() -> None:
    made = report(cached_bytes=5, subsampled=3)
    values = json.loads(json.dumps(to_dict(made, TRAINER), allow_nan=False))
    renamed = {"command": "verdict", "splits": "data", "qualities": "quality"}
    assert {renamed.get(entry.name, entry.name) for entry in fields(made)} <= values.keys()
    plain = ("name", "folder", "environment", "free_disk", "cached_bytes", "subsampled")
    assert {key: values[key] for key in plain} == {key: getattr(made, key) for key in plain}
    assert values["ready"] is True
    assert values["dry_run"]["speed"]["steps_per_epoch"] == 200
    assert values["budget"]["hours"] == pytest.approx(840 / 3600)
    assert values["quality"]["train"]["repeated"] == 9
    assert values["data"]["train"]["kept"] == 9


def disturbed_dry_run(folder: Path, blow: Callable[[psutil.Process], None]) -> None:
    """Starts a dry run and strikes while its process starts, before it reads its data."""
    before = set(psutil.Process().children())

    def strike() -> None:
        while not (
            children := [c for c in psutil.Process().children() if c not in before and "spawn_main" in str(c.cmdline())]
        ):
            time.sleep(0.01)
        blow(children[0])

    striker = Thread(target=strike)
    striker.start()
    try:
        larger_than_a_pipe = bytes(1 << 20)
        dry_run(Config(cache_root=str(folder)), larger_than_a_pipe, free_bytes=GIB)  # type: ignore[arg-type]
    finally:
        striker.join()


def test_a_dry_run_that_the_system_kills_is_reported(tmp_path: Path) -> None:
    """What the kernel does to a process that takes too much memory."""
    with pytest.raises(TrainingError, match="memory runs out"):
        disturbed_dry_run(tmp_path, lambda child: child.kill())
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_the_dry_run_and_leaves_nothing(tmp_path: Path) -> None:
    seen: list[psutil.Process] = []

    def interrupt(child: psutil.Process) -> None:
        (folder,) = tmp_path.iterdir()
        (folder / "step-00000000.tmp").mkdir()  # a save that has begun
        seen.append(child)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        disturbed_dry_run(tmp_path, interrupt)
    assert not seen[0].is_running()
    assert not list(tmp_path.iterdir())
