"""One of several processes is killed or hangs: all of them end within the timeout, and the run can go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SECONDS = 6.0
LONG = ("trainer.log_every=5", "trainer.save_every=5", "trainer.eval_every=50",
        "trainer.eval_examples=2", "search.max_length=10", f"trainer.timeout_minutes={SECONDS / 60}")  # fmt: skip


@pytest.fixture
def command(train_run: Any, tmp_path: Path) -> list[str]:
    """A run of two processes that would go on for minutes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "seq2seq", "train"]
    return [sys.executable, *torchrun, *train_run.arguments(tmp_path, *LONG, model="gru")]


def start(command: list[str], *overrides: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*command, *overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def rank(torchrun: subprocess.Popen[bytes], number: int) -> psutil.Process:
    children = psutil.Process(torchrun.pid).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(number))


def wait_for(path: Path, torchrun: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert torchrun.poll() is None, "it ended before it was disturbed"
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_all_ranks_end_when_one_does(tmp_path: Path, command: list[str], victim: int, blow: signal.Signals) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    torchrun = start(command, "trainer.max_steps=100000")
    try:
        wait_for(checkpoints / "step-00000010" / "manifest.json", torchrun)
        ranks = [rank(torchrun, number) for number in (0, 1)]
        ranks[victim].send_signal(blow)
        # torchrun ends what is left with SIGTERM, and after 30 seconds with SIGKILL, which a stopped process needs
        code = torchrun.wait(SECONDS + 30 + 60)
    finally:
        if torchrun.poll() is None:
            os.killpg(torchrun.pid, signal.SIGKILL)
    assert code != 0
    psutil.wait_procs(ranks, timeout=10)
    assert not any(process.is_running() for process in ranks)

    # The link to the last one may be missing: the blow can come between a save and its links.
    reached = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-" + 8 * "[0-9]"))
    again = start(command, f"trainer.max_steps={reached + 3}")
    assert again.wait(240) == 0
    assert (tmp_path / "run" / "results.json").exists()
    assert load_file(checkpoints / f"step-{reached + 3:08d}" / "model.safetensors")
