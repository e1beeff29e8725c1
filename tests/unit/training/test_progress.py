"""What is shown of a run's progress, and where."""

import io
import itertools
import sys
import time
from contextlib import closing

import pytest

from seq2seq.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with closing(Progress(3, 20, enabled=True)) as progress:
        assert " 3/20 " in terminal.getvalue(), "of a resumed run"
        assert "step" in terminal.getvalue()
        progress.update(20)
    last, end = terminal.getvalue().split("\r")[-2:]
    assert last.isspace()
    assert end == ""


@pytest.mark.parametrize(("stream", "term", "enabled"), [
    (Terminal(), "xterm", False), (Terminal(), "dumb", True), (io.StringIO(), "xterm", True),
])  # fmt: skip
def test_nothing_is_shown_elsewhere(
    stream: io.StringIO, term: str, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", stream)
    with closing(Progress(0, 20, enabled=enabled)) as progress:
        progress.update(20)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("total", "step", "told"),
    [(20, 15, "  00:30 left"), (40, 15, "  02:30 left"), (1010, 15, "  1:39:30 left"), (10, 15, "  00:00 left"),
     (None, 15, ""), (20, 5, "")],
)  # fmt: skip
def test_the_time_left_is_that_of_as_many_steps_as_before(
    total: int | None, step: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps in a minute, counted from the one that the process began with."""
    clock = itertools.count(100.0, 60.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert Progress(5, total, enabled=False).remaining(step) == told
