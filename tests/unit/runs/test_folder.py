"""The run folder: who may write there, what an earlier process or a bad disk left there."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder, require_run

HOLD = """
import os, pathlib, sys, time
from seq2seq.runs.folder import RunFolder, require_run
folder = RunFolder(pathlib.Path(sys.argv[1]))
folder.create()
with folder.lock():
    child = os.fork()
    if child:
        print(os.getpid(), child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "a run=1 é")
    run.create()
    return run


@contextmanager
def held(folder: RunFolder) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock, and the number of its child."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number, child = map(int, process.stdout.readline().split())
    assert number == process.pid
    try:
        yield process, child
    finally:
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def lock_error(folder: RunFolder) -> str:
    with pytest.raises(UserError) as refusal, folder.lock():
        pass
    return str(refusal.value)


def test_a_second_process_is_refused_until_the_first_is_gone(folder: RunFolder) -> None:
    with held(folder) as (process, child):
        message = lock_error(folder)
        for word in (f"process {process.pid} on {socket.gethostname()} since 2", str(folder.path), "another name"):
            assert word in message
        process.kill()
        process.wait()
        message = lock_error(folder)  # what it left running still holds the lock
        assert f"leftover child of process {process.pid} on" in message
        assert "which has ended" in message
        assert Path(f"/proc/{child}").exists()
    with (folder.path / "run.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # comes once the child is gone
    with folder.lock():
        assert f"process {os.getpid()} " in (folder.path / "run.lock").read_text()


def test_two_may_look_at_a_run_at_once(folder: RunFolder) -> None:
    with folder.lock():
        pass
    with (folder.path / "run.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        folder.inspect()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_where_the_file_system_has_no_locks(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    mark = folder.path / "run.lock.holder"
    with folder.lock():
        message = lock_error(folder)
        assert f"process {os.getpid()} on" in message
        assert str(mark) in message
    assert not mark.exists()
    ended = subprocess.Popen(["true"])
    ended.wait()
    mark.write_text(f"process {ended.pid} on {socket.gethostname()} since yesterday")  # killed here: seen
    with folder.lock():
        assert f"process {os.getpid()} " in mark.read_text()
    for holder in (f"process {ended.pid} on elsewhere since yesterday", "", "process 1 on"):
        mark.write_text(holder)
        assert f"delete {mark}" in lock_error(folder)


def test_other_errors_of_the_lock_are_not_hidden(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="input/output"), folder.lock():
        pass


def test_the_lock_clears_away_what_killed_processes_were_writing(folder: RunFolder) -> None:
    for name in (".config.yaml.123", ".probe.7", ".results.json.99", ".hidden", "config.yaml"):
        (folder.path / name).write_text("x")
    with folder.lock():
        pass
    assert {path.name for path in folder.path.iterdir()} == {".hidden", "config.yaml", "run.lock"}


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output_root=DIR"):
        RunFolder(tmp_path / place).create()


def test_checkpoints_without_a_configuration_are_refused(folder: RunFolder) -> None:
    (folder.checkpoints / "step_1").mkdir(parents=True)
    for _ in ("missing", "empty"):
        with pytest.raises(UserError, match="has checkpoints but"):
            folder.create()
        with pytest.raises(UserError, match="is not a run folder"):
            require_run(str(folder.path))
        folder.config.write_text("")
    folder.config.write_text("name: x\n")
    folder.create()


def test_only_a_checkpoint_or_results_make_a_run(folder: RunFolder) -> None:
    assert not folder.holds_run()
    folder.config.write_text("name: x\n")
    for name in ("step-00000004.tmp-1x00000000", "failed"):
        (folder.checkpoints / name).mkdir(parents=True)
    assert not folder.holds_run(), "a start that failed"
    for name in ("step-00000004", "step-00000004.old-1x00000000", "last"):
        (folder.checkpoints / name).mkdir()
        assert folder.holds_run()
        (folder.checkpoints / name).rmdir()
    folder.results.write_text("{}")
    assert folder.holds_run()


GOOD = {"objective": {"value": 1.5}, "test": {"news": {"bleu": {"score": 30, "signature": "s"}}}}


def test_results_are_read(folder: RunFolder) -> None:
    assert folder.read_results() is None
    for results in (GOOD, {"objective": {"value": None}, "test": {}}):
        folder.results.write_text(json.dumps(results))
        assert folder.read_results() == results


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 10**5, "[]", "3", "{}", '{"objective": 3, "test": {}}', '{"objective": {"value": "x"}, "test": {}}',
     '{"objective": {"value": 1}}', '{"objective": {"value": 1}, "test": {"a": []}}',
     '{"objective": {"value": 1}, "test": {"a": {"bleu": 3}}}', json.dumps(GOOD)[:-9]],
)  # fmt: skip
def test_damaged_results_count_as_none(folder: RunFolder, caplog: pytest.LogCaptureFixture, content: str) -> None:
    folder.results.write_text(content)
    assert folder.read_results() is None
    assert str(folder.results) in caplog.text
    folder.results.write_bytes(b"\xff\xfe")
    assert folder.read_results() is None


def test_the_probe_of_a_starting_process_may_be_cleared_away(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes start at once: the one with the lock clears away what lies there, and the other probes."""
    touch, unlink = Path.touch, Path.unlink

    def cleared(path: Path) -> None:
        touch(path)
        with folder.lock():
            assert not path.exists()

    def unlinked_by_both(path: Path, missing_ok: bool = False) -> None:
        unlink(path)
        unlink(path, missing_ok=missing_ok)

    folder.create()
    assert not list(folder.path.glob(".probe*"))
    monkeypatch.setattr(Path, "touch", cleared)
    folder.create()
    monkeypatch.undo()
    (folder.path / ".probe.7").touch()
    monkeypatch.setattr(Path, "unlink", unlinked_by_both)
    with folder.lock():
        assert not (folder.path / ".probe.7").exists()


def test_a_link_to_a_device_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/null")
    assert require_run(str(tmp_path)).path == tmp_path
    (tmp_path / "train.log").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="points outside the run folder"):
        require_run(str(tmp_path))
