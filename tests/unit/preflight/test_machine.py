import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from seq2seq.preflight import machine


def test_memory_is_that_of_the_system_or_of_the_container(tmp_path: Path) -> None:
    available = partial(machine.available_memory, torch.device("cpu"), cgroup=tmp_path)
    assert available() == pytest.approx(psutil.virtual_memory().available, rel=0.2), "without files: no container"
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    assert available() == 4000


def test_the_disk_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    assert machine.free_disk(tmp_path / "not" / "yet") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert machine.free_disk(Path("/proc/version")) == shutil.disk_usage("/proc").free


def test_a_writable_place_is_left_as_it_was(tmp_path: Path) -> None:
    assert machine.write_error(tmp_path / "a" / "b") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reason = machine.write_error(tmp_path / "file" / "outputs")
    assert reason is not None
    assert reason.startswith(f"{tmp_path / 'file'}: ")


def test_a_file_system_that_takes_no_files_is_told() -> None:
    reason = machine.write_error(Path("/proc/outputs"))
    assert reason is not None


def test_a_limit_on_the_size_of_files_is_told(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys, pathlib; from seq2seq.preflight import machine;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "sys.exit(machine.write_error(pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=os.environ, check=False
    )
    assert "File too large" in done.stderr
