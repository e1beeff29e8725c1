"""Tasks in the background: one at a time, none lost, errors raised once."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq.training.background import Background


class FullError(Exception):
    """What a task fails with."""


def fail() -> None:
    raise FullError("no space")


def test_a_task_runs_beside_the_caller_and_wait_waits_for_it() -> None:
    background, go, done = Background(), threading.Event(), threading.Event()

    def task() -> None:
        go.wait()
        done.set()

    background.submit(task)  # would hang here if it ran in this thread
    assert not done.is_set()
    go.set()
    background.wait()
    assert done.is_set()
    background.wait()  # idle


def test_tasks_run_in_order_and_never_two_at_a_time() -> None:
    background, running, order = Background(), threading.Lock(), []

    def task(number: int) -> None:
        assert running.acquire(blocking=False)
        order.append(number)
        running.release()

    for number in range(20):
        background.submit(lambda number=number: task(number))
    background.wait()
    assert order == list(range(20))


@pytest.mark.parametrize("ask", ["wait", "submit"])
def test_an_error_is_raised_once_in_the_thread_that_asks(ask: str) -> None:
    background, ran = Background(), []
    background.submit(fail)
    with pytest.raises(FullError, match="no space"):
        background.wait() if ask == "wait" else background.submit(lambda: ran.append("too soon"))
    background.wait()
    background.submit(lambda: ran.append("next"))
    background.wait()
    assert ran == ["next"]


def test_a_block_that_fails_still_waits() -> None:
    done = threading.Event()
    with pytest.raises(ValueError, match="unrelated"):
        fail_beside(done.set)
    assert done.is_set()


def test_an_error_of_a_task_is_not_lost_beside_that_of_the_block() -> None:
    with pytest.raises(FullError) as caught:
        fail_beside(fail)
    assert isinstance(caught.value.__context__, ValueError)


def fail_beside(task: Callable[[], None]) -> None:
    with Background() as background:
        background.submit(task)
        raise ValueError("unrelated")


ENDS_WITHOUT_WAITING = """
import sys, threading
from pathlib import Path
from seq2seq.training.background import Background

failing = threading.Event()

def task():
    failing.wait()
    threading.Event().wait(0.2)  # long enough for the main thread to be gone
    Path(sys.argv[1]).write_text("whole")

Background().submit(task)
failing.set()
raise ValueError("unrelated")
"""


def test_a_process_that_ends_without_waiting_finishes_the_task(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDS_WITHOUT_WAITING, str(tmp_path / "file")]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unrelated" in done.stderr
    assert (tmp_path / "file").read_text() == "whole"


def test_an_error_can_be_asked_for_without_waiting() -> None:
    background, go = Background(), threading.Event()
    background.raise_error()  # nothing was ever submitted

    def fail_later() -> None:
        go.wait()
        fail()

    background.submit(fail_later)
    background.raise_error()  # still under way
    go.set()
    with pytest.raises(FullError):
        poll(background)
    background.wait()


def poll(background: Background) -> None:
    for _ in range(1000):
        background.raise_error()
        threading.Event().wait(0.01)
