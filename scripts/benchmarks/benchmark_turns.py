"""Contenders in processes of their own, measured in turns: A B A B, never two at a time."""

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

# As seq2seq does for itself: glibc keeps what is freed, and large blocks cost no page faults at each step.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Work(Protocol):
    """What a contender does in each of its turns."""

    def turn(self) -> Any:
        """The work of a turn; returns what is to be compared between contenders."""

    def facts(self) -> dict[str, Any]:
        """What is known beforehand: counts and sizes."""


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        name: In the table.
        build: Makes the work, in the contender's process; a function of a module.
        arguments: For `build`.
    """

    name: str
    build: Callable[..., Work]
    arguments: tuple[Any, ...] = ()


@dataclass
class Measured:
    """What the turns of a contender have shown.

    Attributes:
        seconds: Of each turn, on the wall's clock.
        cpu_seconds: Of each turn, summed over the threads of the process.
        results: What each turn returned.
        facts: What its work knows of itself.
        peak_mb: Largest resident memory of its process in MiB.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    peak_mb: float = 0.0

    def median(self) -> float:
        """Seconds of the median turn."""
        return statistics.median(self.seconds)

    def spread(self) -> float:
        """How far the slowest and fastest turn are apart, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median()

    def times_faster(self, other: "Measured") -> float:
        """Median over the rounds of the other's seconds over the own ones of the same round."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))

    def times_less_cpu(self, other: "Measured") -> float:
        """The same of the processor's time, which another program on the machine disturbs less."""
        return statistics.median(b / a for a, b in zip(self.cpu_seconds, other.cpu_seconds, strict=True))


def take_turns(
    contenders: Sequence[Contender], *, rounds: int, warmup: int, threads: int, profiles: Path | None = None
) -> dict[str, Measured]:
    """Measures all contenders, each in a process of its own that waits while another one works.

    Args:
        contenders: In the order of their turns.
        rounds: Turns of each that count.
        warmup: Turns of each before these.
        threads: Of each process.
        profiles: A folder that receives, at the end, a trace and the top operators of a turn of each.
    """
    measured = {contender.name: Measured(contender.name) for contender in contenders}
    with ExitStack() as stack:
        running = {c.name: stack.enter_context(_Running(c, threads)) for c in contenders}
        for number in range(warmup + rounds):
            for name, process in running.items():
                seconds, cpu_seconds, result = process.ask("turn")
                if number < warmup:
                    continue
                print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)
                measured[name].seconds.append(seconds)
                measured[name].cpu_seconds.append(cpu_seconds)
                measured[name].results.append(result)
        for name, process in running.items():
            measured[name].facts, measured[name].peak_mb = process.ask("facts")
        if profiles is not None:
            profiles.mkdir(parents=True, exist_ok=True)
            for name, process in running.items():
                print(f"{name}, a turn\n{process.ask(str(profiles / name))}")
    return measured


class _Running:
    """A contender's process, as a context."""

    def __init__(self, contender: Contender, threads: int):
        self._name = contender.name
        os.environ.update({"OMP_NUM_THREADS": str(threads), **_ALLOCATOR})
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "_Running":
        self.ask("ready")  # one is built at a time, too
        return self

    def ask(self, what: str) -> Any:
        self._connection.send(what)
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            sys.exit(f"{self._name} ended with code {self._process.exitcode}")

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, contender: Contender) -> None:
    """Builds the work and does what is asked for until the other side is gone."""
    work = contender.build(*contender.arguments)
    while True:
        try:
            what = connection.recv()
        except EOFError:
            return
        if what == "ready":
            connection.send(None)
        elif what == "turn":
            connection.send(timed(work))
        elif what == "facts":
            connection.send((work.facts(), peak_mb()))
        else:
            connection.send(profiled(work, Path(what)))


def timed(work: Work) -> tuple[float, float, Any]:
    """Seconds and processor seconds, those of ended child processes counted, of a turn, and what it returned."""
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    result = work.turn()
    return time.perf_counter() - began, _cpu_seconds() - cpu_began, result


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def profiled(work: Work, path: Path) -> str:
    """Writes `path`.json, a trace for chrome://tracing or Perfetto, and returns the table of the top operators."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work.turn()
    profiler.export_chrome_trace(str(path.with_name(f"{path.name}.json")))
    table: str = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)
    path.with_name(f"{path.name}.txt").write_text(table, encoding="utf-8")
    return table


def peak_mb() -> float:
    """Largest resident memory of this process in MiB; on Linux by its own mark, as getrusage's outlives an exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column holds words and the others figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
