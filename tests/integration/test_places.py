"""Run folders on bad disks, in use, with odd names; logs that cannot be written; a clock that jumps."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seq2seq.cli.main import run_command
from seq2seq.runs.folder import RunFolder

Command = Callable[..., subprocess.CompletedProcess[str]]


def weights(run: Path) -> bytes:
    return (run / "checkpoints/last/model.safetensors").read_bytes()


@pytest.fixture
def refused(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `train` in this process, sees it refuse with code 2, and returns the message."""
    monkeypatch.chdir(home)

    def run(*arguments: str) -> str:
        assert run_command("train", list(arguments)) == 2
        told = capsys.readouterr().err
        assert told.count("seq2seq: error: ") == 1
        return told

    return run


@pytest.mark.parametrize("root", ["/proc", "train.en"])
def test_a_place_that_cannot_be_written_is_told_before_the_data_is_read(
    refused: Callable[..., str], overrides: tuple[str, ...], root: str
) -> None:
    message = refused("name=x", *overrides, "data.train.source=no-such-file", f"output_root={root}")
    assert f"cannot write the run folder {root}/x" in message
    assert "output_root=DIR" in message


def test_a_run_folder_in_use_is_refused(refused: Callable[..., str], home: Path, overrides: tuple[str, ...]) -> None:
    folder = RunFolder(home / "outputs" / "busy")
    folder.create()
    with folder.lock():
        message = refused("name=busy", *overrides, "overwrite=true")
    assert f"in use by process {os.getpid()} on " in message


def test_a_configuration_that_is_damaged_or_gone_is_refused(
    refused: Callable[..., str], home: Path, trained: Path, overrides: tuple[str, ...]
) -> None:
    shutil.copytree(trained, home / "outputs" / "bare", symlinks=True)
    (home / "outputs/bare/config.yaml").write_text("name: [")
    assert "config.yaml" in refused("name=bare", *overrides)
    (home / "outputs/bare/config.yaml").unlink()
    assert "no config.yaml" in refused("name=bare", *overrides)
    assert weights(home / "outputs" / "bare") == weights(trained)


@pytest.mark.slow
def test_odd_names_another_folder_and_a_first_try_that_failed(
    seq2seq: Command, home: Path, trained: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """A data check that fails leaves a log only, and the same name can be used."""
    place = f'output_root="{tmp_path}/où = là"'
    files = [override.partition("=") for override in overrides if override.endswith((".en", ".de"))]
    absolute = [*overrides[: -len(files)], *(f'{key}="{home}/{name}"' for key, _, name in files)]
    bad = seq2seq("train", 'name="a=b é"', *absolute, "data.train.source=nothing", place, cwd=tmp_path)
    assert bad.returncode == 2
    run = tmp_path / "où = là" / "a=b é"
    assert {path.name for path in run.iterdir()} == {"train.log", "run.lock"}
    done = seq2seq("train", 'name="a=b é"', *absolute, place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert weights(run) == weights(trained)
    done = seq2seq("generate", f'run="{run}"', f'input="{home}/news.en"', cwd=tmp_path)
    assert done.stdout == (trained / "generations/news.txt").read_text()


@pytest.mark.slow
def test_damaged_results_are_computed_again(
    seq2seq: Command, home: Path, trained: Path, overrides: tuple[str, ...]
) -> None:
    run = home / "outputs" / "damaged"
    shutil.copytree(trained, run, symlinks=True)
    (run / "results.json").write_text('{"name": "dam')
    done = seq2seq("train", "name=damaged", *overrides)
    assert done.returncode == 0, done.stderr
    assert "results.json is damaged" in done.stderr
    assert (
        json.loads((run / "results.json").read_text())["test"]
        == json.loads((trained / "results.json").read_text())["test"]
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len({(line["step"], line["tag"]) for line in lines}) == len(lines)  # scores of test sets are there once


def test_training_needs_no_log(
    interpreter: Command, home: Path, trained: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """TensorBoard is not installed, the disk of the logs is full: a warning for each, and the same weights."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/__init__.py").write_text("raise ImportError('No module named tensorboard')\n")
    run = home / "outputs" / "mute"
    run.mkdir()
    for name in ("metrics.jsonl", "train.log"):
        (run / name).symlink_to("/dev/full")
    done = interpreter("train", "name=mute", *overrides, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("no TensorBoard events are written") == 1
    for name in ("metrics.jsonl", "train.log"):
        assert done.stderr.count(f"{name} cannot be written") == 1
    assert weights(run) == weights(trained)


CLOCK = """
import itertools, time
jumps = itertools.cycle([0, 9e8, -1.2e9, 3e7])
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + next(jumps)
time.time_ns = lambda: real_ns() + int(next(jumps)) * 10**9
"""


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing_also_when_the_run_is_stopped_in_time(
    interpreter: Command, home: Path, trained: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    command = ("train", "name=clock", *overrides)
    stopped = interpreter(*command, "trainer.stop_after_minutes=1e-9", PYTHONPATH=str(tmp_path))
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("seq2seq: stopped by trainer.stop_after_minutes=")
    run = home / "outputs" / "clock"
    assert not (run / "results.json").exists()
    assert interpreter(*command, PYTHONPATH=str(tmp_path)).returncode == 0
    assert weights(run) == weights(trained)
    before = {
        path: path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("train.log", "run.lock")
    }
    again = interpreter(*command, PYTHONPATH=str(tmp_path))
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True)
    assert {path: path.read_bytes() for path in before} == before
    scalars = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("valid/loss")
    assert [event.step for event in scalars] == [15, 30]


FULL = """
import sys, json, logging
from pathlib import Path
from seq2seq.runs.tracking import Tracker
logging.basicConfig()
run = Path(sys.argv[1])
ballast = run / "ballast"
tracker = Tracker(run)
tracker.log(1, {"x": 1.0})
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(64))
    except OSError as error:
        assert error.errno == 28
for step in range(2, 60):
    tracker.log(step, {"x": float(step), "y": 1.0})
    tracker.flush()
ballast.unlink()
tracker.log(60, {"x": 60.0})
tracker.close()
Tracker(run, resume_step=60).close()
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
steps = [e.step for e in EventAccumulator(str(run / "tensorboard")).Reload().Scalars("x")]
lines = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open() if '"x"' in line]
print(json.dumps([steps, lines]))
"""


def test_logs_on_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """A real one: a file system in memory, mounted in a name space of its own."""
    mounted = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3" "$1"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets users make no name spaces")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", tmp_path, sys.executable, FULL],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps, lines = json.loads(done.stdout)
    for seen in (steps, lines):
        assert seen[0] == 1
        assert seen[-1] == 60
        assert len(seen) < 59
        assert seen == sorted(set(seen))
    assert done.stderr.count("No space left") == 2  # one for each log
    assert "Traceback" not in done.stderr
