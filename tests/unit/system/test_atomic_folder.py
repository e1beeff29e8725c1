import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seq2seq.errors import TrainingError, UserError
from seq2seq.system.atomic_folder import build_once


def complete(folder: Path) -> bool:
    return (folder / "done").is_file()


def fill(folder: Path) -> None:
    (folder / "done").write_text("yes")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_builds_once(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        assert not complete(tmp_path / "x")
        fill(folder)

    for _ in range(2):
        build_once(tmp_path / "x", build, is_complete=complete)
    assert len(built) == 1
    assert entries(tmp_path) == ["x"]


def test_an_incomplete_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "half").touch()
    build_once(tmp_path / "x", fill, is_complete=complete)
    assert entries(tmp_path / "x") == ["done"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "x", build, is_complete=complete)
    assert entries(tmp_path) == []


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    lines: list[str] = []
    started, go_on = threading.Event(), threading.Event()
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        started.set()
        assert go_on.wait(10)
        fill(folder)

    def run() -> None:
        build_once(tmp_path / "x", build, is_complete=complete, log=lines.append)

    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    assert started.wait(10)
    second.start()
    while not lines:
        time.sleep(0.01)
    go_on.set()
    first.join()
    second.join()
    assert len(built) == 1
    assert "Another process is preparing" in lines[0]


def test_without_locks_the_slower_one_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)

    def build(folder: Path) -> None:
        fill(folder)
        if not complete(tmp_path / "x"):
            build_once(tmp_path / "x", fill, is_complete=complete)  # another process, in the meantime

    build_once(tmp_path / "x", build, is_complete=complete)
    assert entries(tmp_path) == ["x"]


KILLED = """
import sys, time
from pathlib import Path
from seq2seq.system.atomic_folder import build_once
def build(folder):
    (folder / "part").touch()
    print("building", flush=True)
    time.sleep(60)
build_once(Path(sys.argv[1]), build, is_complete=lambda folder: (folder / "done").is_file())
"""


@pytest.mark.parametrize("next_one", ["x", "other"])
def test_what_a_killed_process_leaves_is_removed(tmp_path: Path, next_one: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        if next_one == "other":  # what a living process works on stays
            build_once(tmp_path / "third", fill, is_complete=complete)
            assert any(name.endswith(".partial") for name in entries(tmp_path))
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "x").exists()
    assert any(name.endswith(".partial") for name in entries(tmp_path))
    build_once(tmp_path / next_one, fill, is_complete=complete)
    assert not any(name.endswith(".partial") for name in entries(tmp_path))


def test_leftovers_that_cannot_be_removed_are_in_nobodys_way(tmp_path: Path) -> None:
    left = ["x.0123abcd.partial", "y.0123abcd.partial"]
    for name in left:
        (tmp_path / name).touch()  # no folder, so that removing it as one fails
    build_once(tmp_path / "x", fill, is_complete=complete)
    assert entries(tmp_path) == ["x", *left]


def test_full_disk_and_unwritable_place(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(TrainingError, match="the disk is full"):
        build_once(tmp_path / "x", build, is_complete=complete)
    assert entries(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_root: .* cannot be written to"):
        build_once(tmp_path / "file" / "x", fill, is_complete=complete)
