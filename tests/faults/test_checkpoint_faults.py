"""Killed saves, disks that fill or turn read-only, damaged checkpoints: what is saved stays good and is found."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.cli.main import run_command
from seq2seq.errors import Interrupted
from seq2seq.runs.checkpoint import Checkpoint
from seq2seq.runs.checkpoint_store import CheckpointStore

SMALL = ("model.d_model=16", "model.embedding_size=8", "model.encoder_size=8", "trainer.eval_examples=0",
         "trainer.log_every=4", "trainer.eval_every=4", "trainer.keep_last=3")  # fmt: skip


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0b100
    path.write_bytes(data)


# --- damage, through the command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(train_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output root of a run that keeps three checkpoints."""
    root = tmp_path_factory.mktemp("trained")
    train_run(root, *SMALL, model="gru")
    return root


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, as it was before it was complete."""
    shutil.copytree(trained / "run", tmp_path / "run", symlinks=True)
    shutil.copytree(trained / ".cache", tmp_path / ".cache")
    (tmp_path / "run" / "results.json").unlink()
    return tmp_path / "run"


def go_on(run: Path, train_run: Any, *overrides: str) -> int:
    return run_command("train", train_run.arguments(run.parent, *SMALL, *overrides, model="gru"))


def test_no_valid_checkpoint_ends_with_code_2_naming_the_files(
    run: Path, train_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = run / "checkpoints"
    os.truncate(checkpoints / "step-00000004" / "optimizer.safetensors", 100)
    flip_a_bit(checkpoints / "step-00000008" / "model.safetensors")
    (checkpoints / "step-00000012" / "state.json").write_bytes(b"")
    before = sorted(checkpoints.rglob("*"))
    assert go_on(run, train_run) == 2
    error = capsys.readouterr().err.partition("seq2seq: error: ")[2]
    for name in ("4/optimizer.safetensors", "8/model.safetensors", "12/state.json"):
        assert f"step-{name.rjust(len(name) + 8 - name.index('/'), '0')}: damaged" in error
    assert "overwrite=true" in error
    assert "Traceback" not in error
    assert sorted(checkpoints.rglob("*")) == before


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "bit flipped": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_it_were_not(
    run: Path, train_run: Any, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    final = run / "checkpoints" / "step-00000012"
    expected = {path.name: path.read_bytes() for path in final.glob("*.safetensors")}
    damage(final / "optimizer.safetensors")
    assert go_on(run, train_run, "trainer.keep_last=1") == 0
    errors = capsys.readouterr().err
    assert "step-00000012/optimizer.safetensors: damaged" in errors
    assert "resuming from step 8" in errors
    assert (run / "checkpoints" / "last").resolve() == final
    assert {path.name: path.read_bytes() for path in final.glob("*.safetensors")} == expected


def test_average_over_a_damaged_checkpoint_names_it_and_the_way_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_a_bit(run / "checkpoints" / "step-00000008" / "model.safetensors")
    assert run_command("average", [f"run={run}"]) == 2
    error = capsys.readouterr().err.partition("seq2seq: error: ")[2]
    assert "step-00000008/model.safetensors: damaged" in error
    assert not (run / "checkpoints" / "average").exists()
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    assert run_command("average", [f"run={run}"]) == 0
    assert "the mean of steps 4, 12" in capsys.readouterr().out


def test_average_leaves_out_what_only_an_interruption_saved(
    train_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stops = ("trainer.stop_after_minutes=1e-9", "trainer.save_every=2", "trainer.eval_every=2", "trainer.keep_last=9")
    for _ in range(5):
        with pytest.raises(Interrupted):
            train_run(tmp_path, *stops)
    assert train_run.at(tmp_path).checkpoints() == [2, 4, 5]
    assert run_command("average", [f"run={tmp_path / 'run'}"]) == 0
    assert "the mean of steps 2, 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["count=0"], ["count=0", "at least 1"]),
        (["count=-1"], ["count=-1", "at least 1"]),
        (["count=4"], ["count=4", "only 3 checkpoints", "trainer.keep_last"]),
        (["which=newest"], ["which", "newest"]),
    ],
)
def test_average_of_what_cannot_be_is_refused(
    trained: Path, overrides: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("average", [f"run={trained / 'run'}", *overrides]) == 2
    error = capsys.readouterr().err.partition("seq2seq: error: ")[2]
    assert all(part in error for part in parts), error


@pytest.mark.parametrize("command", ["average", "evaluate", "generate"])
def test_a_run_without_checkpoints_says_so(
    run: Path, files: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    valid = [f"+{key.replace('valid', 'test.again')}" for key in files if key.startswith("data.valid.")]
    assert run_command(command, [f"run={run}", *(valid if command == "evaluate" else [])]) == 2
    assert "available: none yet" in capsys.readouterr().err


# --- kills and limits ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(step, {"model": {"weight": torch.full((3,), float(step))}}, {"step": step})


def assert_is_step(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.step == checkpoint.state["step"] == step
    assert checkpoint.tensors["model"]["weight"].tolist() == [step] * 3


SAVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import torch
from seq2seq.runs.checkpoint_store import CheckpointStore

real = getattr(os, sys.argv[3])
left = int(sys.argv[4])

def deadly(*args):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(*args)

setattr(os, sys.argv[3], deadly)
store = CheckpointStore(Path(sys.argv[1]))
store.save(int(sys.argv[2]), {"model": {"weight": torch.zeros(3)}}, {})
"""


def die_while_saving(store: CheckpointStore, step: int, call: str, after: int) -> None:
    command = [sys.executable, "-c", SAVE_AND_DIE, str(store.root), str(step), call, str(after)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL


def test_killed_between_write_and_rename_leaves_the_old_one(store: CheckpointStore) -> None:
    save(store, 10)
    store.link("last", 10)
    die_while_saving(store, 20, "replace", 0)
    leftovers = [path.name for path in store.root.glob("step-00000020.tmp-*")]
    assert len(leftovers) == 1
    assert store.steps() == [10]
    assert_is_step(store.latest_valid(), 10)
    store.prune([10])
    assert sorted(path.name for path in store.root.iterdir()) == ["last", "step-00000010"]


def test_killed_while_replacing_a_step_loses_nothing(store: CheckpointStore) -> None:
    save(store, 10)
    store.link("last", 10)
    die_while_saving(store, 10, "replace", 0)  # the old folder has stepped aside, the new one is not in place
    assert not (store.root / "step-00000010").exists()
    assert store.steps() == [10]
    assert_is_step(store.latest_valid(), 10)
    assert_is_step(store.load("last"), 10)
    store.clean()
    assert sorted(path.name for path in store.root.iterdir()) == ["last", "step-00000010"]
    assert_is_step(store.load("last"), 10)


def test_killed_before_the_replaced_step_is_deleted_keeps_the_new_one(store: CheckpointStore) -> None:
    save(store, 10)
    # save flushes weights, state, manifest and their folder through os.open, and after both renames the folder above
    die_while_saving(store, 10, "open", 4)
    assert len(list(store.root.glob("step-00000010.old-*"))) == 1
    assert store.load("10").tensors["model"]["weight"].tolist() == [0, 0, 0]
    assert store.steps() == [10]
    store.clean()
    assert [path.name for path in store.root.iterdir()] == ["step-00000010"]


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
import torch
from seq2seq.runs.checkpoint_store import CheckpointSaveError, CheckpointStore

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    CheckpointStore(Path(sys.argv[1])).save(20, {"model": {"weight": torch.zeros(10_000)}}, {})
except CheckpointSaveError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_no_trace(store: CheckpointStore) -> None:
    save(store, 10)
    command = [sys.executable, "-c", FILL_THE_DISK, str(store.root)]
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert re.search(r"step-00000020: .*File too large.*; it needs 40,000 bytes, and .* free$", done.stdout)
    assert [path.name for path in store.root.iterdir()] == ["step-00000010"]
    assert_is_step(store.latest_valid(), 10)


# --- devices that fill, mounts that turn read-only ------------------------------------------------------------


def in_own_mount(folder: Path, size: str, script: str, *arguments: str) -> str:
    """Runs a script where the folder is a small disk of its own: mounts need no rights in a user namespace."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this kernel gives no user namespaces, so nothing can be mounted")
    folder.mkdir()
    mounted = ["bash", "-ec", f'mount -t tmpfs -o size={size} none "$0" && exec "$@"', str(folder)]
    command = [*namespace, *mounted, sys.executable, "-c", script, str(folder), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FULL_AT_A_SAVE = """
import os, re, sys
from pathlib import Path
import torch
from seq2seq.runs.checkpoint_store import CheckpointSaveError, CheckpointStore

disk = Path(sys.argv[1])
store = CheckpointStore(disk / "checkpoints")
tensors = {"model": {"weight": torch.ones(20_000)}, "optimizer": {"weight": torch.ones(20_000)}}
store.link("last", store.save(10, tensors, {}))
before, failures, page = sorted(disk.rglob("*")), 0, os.sysconf("SC_PAGESIZE")
for room in range(0, 50 * page, 2 * page):  # each file of a checkpoint hits the end at some of these
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    (disk / "filler").write_bytes(bytes(free - room))
    try:
        store.save(20, tensors, {"notes": "x" * 2 * page})
    except CheckpointSaveError as error:
        failures += 1
        said = r"/step-00000020: .*No space left.*; it needs 160,000 bytes, and .* has [0-9,]+ free"
        assert re.search(said, str(error)), error
        (disk / "filler").unlink()
        assert sorted(disk.rglob("*")) == before
        assert store.load("last").tensors["model"]["weight"].sum() == 20_000
    else:
        break
assert failures > 15, failures
assert store.latest_valid().step == 20
"""


def test_a_full_device_costs_nothing_but_the_save(tmp_path: Path) -> None:
    in_own_mount(tmp_path / "disk", "1m", FULL_AT_A_SAVE)


READ_ONLY = """
import subprocess, sys
from pathlib import Path
import torch
from seq2seq.runs.checkpoint_store import CheckpointSaveError, CheckpointStore

disk = Path(sys.argv[1])
store = CheckpointStore(disk / "checkpoints")
for step in (10, 20):
    store.link("last", store.save(step, {"model": {"weight": torch.ones(3)}}, {}))
(store.root / "step-00000030.tmp-1x00000000").mkdir()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
for what in (
    lambda: store.save(30, {"model": {"weight": torch.ones(3)}}, {}),
    lambda: store.link("best", 10),
    lambda: store.prune([20]),
):
    try:
        what()
    except CheckpointSaveError as error:
        assert "Read-only file system" in str(error) and str(store.root) in str(error), error
    else:
        raise AssertionError("nothing was raised")
assert store.latest_valid().step == store.load("last").step == 20
assert store.steps() == [10, 20]
"""


def test_a_disk_that_turns_read_only_is_named_and_still_read(tmp_path: Path) -> None:
    in_own_mount(tmp_path / "disk", "1m", READ_ONLY)


TRAIN_ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from seq2seq.runs.checkpoint_store import CheckpointStore

disk, arguments = Path(sys.argv[1]), sys.argv[2:]
train = [sys.executable, "-m", "seq2seq", "train", *arguments]
done = subprocess.run(train, capture_output=True, text=True)
assert done.returncode == 3, done.stderr
error = done.stderr.partition("seq2seq: error: ")[2]
assert "No space left" in error and "bytes" in error and "Traceback" not in done.stderr, done.stderr
store = CheckpointStore(disk / "run" / "checkpoints")
found = store.latest_valid()
assert found is not None and 0 < found.step < 12, done.stderr
assert not [path for path in store.root.iterdir() if ".tmp-" in path.name]
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
done = subprocess.run(train, capture_output=True, text=True)
assert done.returncode == 0, done.stderr
assert f"resuming from step {found.step}" in done.stderr
sys.stdout.buffer.write((disk / "run" / "checkpoints" / "last" / "model.safetensors").read_bytes().hex().encode())
"""


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_with_code_3_and_goes_on_once_there_is_room(
    train_run: Any, trained: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    keys = train_run.arguments(disk, *SMALL, f"cache_root={tmp_path / 'cache'}", model="gru")
    weights = in_own_mount(disk, "480k", TRAIN_ON_A_SMALL_DISK, *keys)
    uninterrupted = trained / "run" / "checkpoints" / "last" / "model.safetensors"
    assert bytes.fromhex(weights) == uninterrupted.read_bytes()
