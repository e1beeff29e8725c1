"""Runs contenders in separate processes and times them in turns: A B A B, never two at a time."""

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

# The settings that seq2seq makes for itself: glibc keeps freed memory, so large blocks cost no page faults per step.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Benchmark(Protocol):
    """The work of a contender."""

    def turn(self) -> Any:
        """Does the work of one turn; returns a result to compare between contenders."""

    def stats(self) -> dict[str, Any]:
        """Returns counts and sizes that do not depend on the timing; none unless overridden."""
        return {}


@dataclass(frozen=True)
class Contender:
    """One program or setting to measure.

    Attributes:
        name: Its name in the table.
        build: Builds the benchmark in the contender's process; must be picklable.
        arguments: For `build`.
    """

    name: str
    build: Callable[..., Benchmark]
    arguments: tuple[Any, ...] = ()


@dataclass
class Timings:
    """Measurements of the turns of one contender.

    Attributes:
        name: The contender's name.
        seconds: Wall time of each turn.
        cpu_seconds: CPU time of each turn, summed over the threads of the process.
        results: The return value of each turn.
        stats: Its counts and sizes, see `Benchmark.stats`.
        peak_mb: Peak resident memory of its process in MiB.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    peak_mb: float = 0.0

    def median(self) -> float:
        """Returns the seconds of the median turn."""
        return statistics.median(self.seconds)

    def spread(self) -> float:
        """Returns the difference between the slowest and the fastest turn as a fraction of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median()

    def speedup_over(self, other: "Timings") -> float:
        """Returns the median over rounds of `other`'s seconds divided by the own seconds of the same round."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))

    def cpu_speedup_over(self, other: "Timings") -> float:
        """Like `speedup_over` in CPU time, which other programs on the machine disturb less."""
        return statistics.median(b / a for a, b in zip(self.cpu_seconds, other.cpu_seconds, strict=True))


def take_turns(
    contenders: Sequence[Contender], *, rounds: int, warmup: int, threads: int, profiles: Path | None = None
) -> dict[str, Timings]:
    """Measures all contenders, each in its own process that waits while the others work.

    Args:
        contenders: In the order of their turns.
        rounds: Measured turns per contender.
        warmup: Warm-up turns per contender.
        threads: Threads per process.
        profiles: Folder that receives a trace and the top operators of one more turn of each contender.
    """
    measured = {contender.name: Timings(contender.name) for contender in contenders}
    with ExitStack() as stack:
        running = {c.name: stack.enter_context(_ContenderProcess(c, threads)) for c in contenders}
        for round_index in range(warmup + rounds):
            for name, process in running.items():
                seconds, cpu_seconds, result = process.request(time_turn)
                if round_index < warmup:
                    continue
                print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)
                measured[name].seconds.append(seconds)
                measured[name].cpu_seconds.append(cpu_seconds)
                measured[name].results.append(result)
        for name, process in running.items():
            measured[name].stats, measured[name].peak_mb = process.request(_final_stats)
        if profiles is not None:
            profiles.mkdir(parents=True, exist_ok=True)
            for name, process in running.items():
                print(f"{name}, a turn\n{process.request(partial(profile_turn, path=profiles / name))}")
    return measured


class _ContenderProcess:
    """The process of a contender, as a context manager."""

    def __init__(self, contender: Contender, threads: int):
        self._name = contender.name
        os.environ.update({"OMP_NUM_THREADS": str(threads), **_ALLOCATOR})
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_connection, contender), daemon=True)
        self._process.start()
        child_connection.close()

    def __enter__(self) -> "_ContenderProcess":
        self._receive()  # contenders are built one at a time, too
        return self

    def request(self, work: Callable[[Benchmark], Any]) -> Any:
        """Lets the process do work on its benchmark; returns the result."""
        self._connection.send(work)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            sys.exit(f"{self._name} ended with code {self._process.exitcode}")

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, contender: Contender) -> None:
    """Builds the benchmark and answers requests until the other end closes."""
    benchmark = contender.build(*contender.arguments)
    connection.send("ready")
    while True:
        try:
            work = connection.recv()
        except EOFError:
            return
        connection.send(work(benchmark))


def time_turn(benchmark: Benchmark) -> tuple[float, float, Any]:
    """Runs a turn; returns its seconds, its CPU seconds (including ended child processes) and its result."""
    start, cpu_start = time.perf_counter(), _cpu_seconds()
    result = benchmark.turn()
    return time.perf_counter() - start, _cpu_seconds() - cpu_start, result


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _final_stats(benchmark: Benchmark) -> tuple[dict[str, Any], float]:
    return benchmark.stats(), peak_memory_mb()


def profile_turn(benchmark: Benchmark, path: Path) -> str:
    """Writes `path`.json, a trace for chrome://tracing or Perfetto, and returns the table of the top operators."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        benchmark.turn()
    profiler.export_chrome_trace(str(path.with_name(f"{path.name}.json")))
    table: str = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)
    path.with_name(f"{path.name}.txt").write_text(table, encoding="utf-8")
    return table


def peak_memory_mb() -> float:
    """Returns the peak resident memory of this process in MiB; on Linux VmHWM, as getrusage's survives an exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table: the first column left-aligned, the others right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
