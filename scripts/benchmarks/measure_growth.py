#!/usr/bin/env python3
"""Measures how a training step's time and memory grow along one axis.

    python scripts/benchmarks/measure_growth.py length                              # a Transformer, the default model
    python scripts/benchmarks/measure_growth.py vocabulary model=gru_small --points 4000 64000
    python scripts/benchmarks/measure_growth.py source model.copy=true trainer.checkpoint_activations=true

    length      tokens per source and target, with a constant number of tokens per batch
    source      tokens per source, with targets of 64 tokens and a constant number of source tokens per batch
    vocabulary  size of the vocabulary, on both sides
    depth       number of encoder layers, and of decoder layers
    width       model.d_model, and other sizes in proportion (model.d_ff is four times as large)
    batch       tokens per batch, on each side

For each point, a separate process builds a model and makes updates (`seq2seq.training.step`) on random ids without
padding. `docs/speed.md` explains the columns and the results.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmark_turns import table

SHORT_TARGET = 64  # tokens, with long sources


@dataclass(frozen=True)
class Workload:
    """What to train at one point of an axis.

    Attributes:
        keys: Overrides of the configuration, applied before the user's.
        source: Tokens per source.
        target: Tokens per target.
        tokens: Tokens per batch, on the longer side.
        vocabulary: Vocabulary size of both sides.
        width: model.d_model; None keeps the configured value.
    """

    keys: tuple[str, ...] = ()
    source: int = 32
    target: int = 32
    tokens: int = 4096
    vocabulary: int = 8000
    width: int | None = None


# The default points of each axis, and the workload at a point.
AXES: dict[str, tuple[tuple[int, ...], Callable[[int], Workload]]] = {
    "length": ((64, 128, 256, 512, 1024, 2048, 4096), lambda n: Workload(source=n, target=n, tokens=8192)),
    "source": ((128, 512, 2048, 4096), lambda n: Workload(source=n, target=SHORT_TARGET, tokens=8192)),
    "vocabulary": ((4000, 8000, 16_000, 32_000, 64_000), lambda n: Workload(vocabulary=n)),
    "depth": (
        (1, 2, 3, 6, 9, 12), lambda n: Workload((f"model.encoder_layers={n}", f"model.decoder_layers={n}"))
    ),
    "width": ((128, 256, 512, 1024), lambda n: Workload(width=n)),
    "batch": ((1024, 2048, 4096, 8192, 16_384, 32_768), lambda n: Workload(tokens=n)),
}  # fmt: skip


@dataclass
class Measurement:
    """Time and memory at one point.

    Attributes:
        seconds: Seconds of each update except the first.
        target_tokens: Target tokens per update.
        own_mb: MiB before the first update: interpreter, libraries, weights.
        peak_mb: Peak MiB.
        problem: Why the measurement ended early; None if it did not.
    """

    seconds: list[float]
    target_tokens: int = 0
    own_mb: float = 0.0
    peak_mb: float = 0.0
    problem: str | None = None

    def step(self) -> float:
        """Returns the seconds of the median update."""
        return statistics.median(self.seconds)


def width_keys(family: str, size: int) -> list[str]:
    """Returns overrides for a width: heads of 64, d_ff four times as large; other GRU sizes are half as large."""
    if family == "transformer":
        return [f"model.d_model={size}", f"model.d_ff={4 * size}", f"model.num_heads={max(1, size // 64)}"]
    halves = (f"model.{name}={size // 2}" for name in ("embedding_size", "encoder_size", "attention_size"))
    return [f"model.d_model={size}", *halves]


def train(connection: Connection, work: Workload, overrides: Sequence[str], steps: int) -> None:
    """Makes updates and sends the `Measurement` so far after each."""
    from benchmark_corpus import compose_config
    from random_updates import build_step, random_batches

    from seq2seq.pipeline.build import start_runtime

    config = compose_config([*work.keys, *overrides])
    if work.width is not None:
        config = compose_config([*width_keys(config.model.family, work.width), *overrides])
    runtime = start_runtime(config.trainer)
    step = build_step(config, work.vocabulary, runtime)
    batches = random_batches(work.vocabulary, tokens=work.tokens, source=work.source, target=work.target)
    measured = Measurement([], batches.target_tokens, own_mb=runtime.peak_memory_mb())
    for index in range(steps + 1):
        start = time.perf_counter()
        step.run(batches, step=index, lr=1e-4)
        step.metrics.consecutive_skips()  # waits for the device
        measured.seconds += [time.perf_counter() - start] if index else []  # the first one is slower
        measured.peak_mb = runtime.peak_memory_mb()
        if step.num_splits:
            measured.problem = "out of memory"
        connection.send(measured)
        if measured.problem:
            return


def measure(work: Workload, overrides: Sequence[str], *, steps: int, limit: float) -> Measurement:
    """Trains in a separate process for at most `limit` seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(sender, work, overrides, steps), daemon=True)
    process.start()
    sender.close()
    measured, end = Measurement([]), time.monotonic() + limit
    try:
        while len(measured.seconds) < steps and measured.problem is None:
            if receiver.poll(max(0.0, end - time.monotonic())):
                measured = receiver.recv()
            elif measured.seconds:
                break  # fewer updates than requested are enough
            else:
                measured.problem = f"over {limit:g} s"
    except EOFError:
        process.join()
        measured.problem = f"ended with code {process.exitcode}"  # -9: killed by Linux's out-of-memory killer
    finally:
        process.kill()
        process.join()
        receiver.close()
    return measured


def row(point: int, measured: Measurement, first: Measurement | None) -> list[str]:
    """Returns the cells of a row; growth is relative to `first`, which is None if no point was measured."""
    if measured.problem is not None:
        return [f"{point:,}", measured.problem, *[""] * 6]
    seconds_per_token = measured.step() / measured.target_tokens
    growth = "" if first is None else f"{seconds_per_token * first.target_tokens / first.step():.2f}"
    kib_per_token = (measured.peak_mb - measured.own_mb) * 2**10 / measured.target_tokens
    return [
        f"{point:,}",
        f"{measured.step():.2f}",
        f"{1 / seconds_per_token:,.0f}",
        f"{1e6 * seconds_per_token:,.0f}",
        growth,
        f"{measured.own_mb:,.0f}",
        f"{measured.peak_mb:,.0f}",
        f"{kib_per_token:,.0f}",
    ]


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for seq2seq train; before --points")
    parser.add_argument("--points", nargs="+", type=int, help="points of the axis, instead of the default ones")
    parser.add_argument("--steps", type=int, default=4, help="measured updates, after one warm-up update")
    parser.add_argument("--limit", type=float, default=40.0, help="maximum seconds per point, including startup")
    parser.add_argument("--json", type=Path, help="file to write all results to")
    options = parser.parse_args()
    points, work = AXES[options.axis]
    results: dict[int, Measurement] = {}
    for point in options.points or points:
        results[point] = measure(work(point), options.overrides, steps=options.steps, limit=options.limit)
        print(f"{options.axis} {point}: {results[point]}", file=sys.stderr, flush=True)
    first = next((measured for measured in results.values() if measured.problem is None), None)
    head = [options.axis, "s a step", "target tokens/s", "µs a token", "× the first", "MiB before", "peak MiB",
            "KiB a token"]  # fmt: skip
    print(table(head, [row(point, measured, first) for point, measured in results.items()]))
    if options.json is not None:
        content = {point: asdict(measured) for point, measured in results.items()}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
