#!/usr/bin/env python3
"""Measures how a training step's time and memory grow along one axis.

    python scripts/benchmarks/measure_growth.py length                              # a Transformer, the default model
    python scripts/benchmarks/measure_growth.py vocabulary model=gru_small --points 4000 64000
    python scripts/benchmarks/measure_growth.py source model.copy=true trainer.checkpoint_activations=true

    length      tokens of every source and target; the tokens of a batch stay the same
    source      tokens of every source beside targets of 64; the source tokens of a batch stay the same
    vocabulary  of both sides
    depth       layers of the encoder, and of the decoder
    width       model.d_model; what belongs to it grows alike (model.d_ff is four times as wide)
    batch       tokens of a batch on a side

Each point is a model of its own in a process of its own, which makes updates (`seq2seq.training.step`) on random ids
without padding. `docs/speed.md` says what the columns mean, and where the curves bend.
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
from typing import Any

from benchmark_turns import table

SHORT = 64  # targets beside long sources


@dataclass(frozen=True)
class Work:
    """What is trained at a point of an axis.

    Attributes:
        keys: Overrides of the configuration; the user's come behind them.
        source: Tokens of every source.
        target: Tokens of every target.
        tokens: Of a batch, on the longer side.
        vocabulary: Of both sides.
        width: model.d_model; None leaves it as it is.
    """

    keys: tuple[str, ...] = ()
    source: int = 32
    target: int = 32
    tokens: int = 4096
    vocabulary: int = 8000
    width: int | None = None


@dataclass(frozen=True)
class Axis:
    """Points, and the work at each of them."""

    points: tuple[int, ...]
    work: Callable[[int], Work]


def _deep(layers: int) -> Work:
    return Work((f"model.encoder_layers={layers}", f"model.decoder_layers={layers}"))


AXES = {
    "length": Axis((64, 128, 256, 512, 1024, 2048, 4096), lambda n: Work(source=n, target=n, tokens=8192)),
    "source": Axis((128, 512, 2048, 4096), lambda n: Work(source=n, target=SHORT, tokens=8192)),
    "vocabulary": Axis((4000, 8000, 16_000, 32_000, 64_000), lambda n: Work(vocabulary=n)),
    "depth": Axis((1, 2, 3, 6, 9, 12), _deep),
    "width": Axis((128, 256, 512, 1024), lambda n: Work(width=n)),
    "batch": Axis((1024, 2048, 4096, 8192, 16_384, 32_768), lambda n: Work(tokens=n)),
}


@dataclass
class Measured:
    """What a point has shown.

    Attributes:
        seconds: Of each update but the first.
        target_tokens: Of an update.
        own_mb: MiB before the first update: the interpreter, the libraries, the weights.
        peak_mb: MiB at most.
        problem: Why there are no more figures; None where nothing went wrong.
    """

    seconds: list[float]
    target_tokens: int = 0
    own_mb: float = 0.0
    peak_mb: float = 0.0
    problem: str | None = None

    def step(self) -> float:
        """Seconds of the median update."""
        return statistics.median(self.seconds)


def width_keys(family: str, size: int) -> list[str]:
    """Overrides for a width: heads of 64, feed-forward blocks four times as wide; all else of a GRU is half as wide."""
    if family == "transformer":
        return [f"model.d_model={size}", f"model.d_ff={4 * size}", f"model.num_heads={max(1, size // 64)}"]
    halves = (f"model.{name}={size // 2}" for name in ("embedding_size", "encoder_size", "attention_size"))
    return [f"model.d_model={size}", *halves]


def train(connection: Connection, work: Work, overrides: Sequence[str], steps: int) -> None:
    """Makes updates and sends, after each, what `Measured` is so far."""
    import torch
    from benchmark_corpus import composed

    from seq2seq.data.batching import Batch
    from seq2seq.data.loader import MicroBatch, StepBatches
    from seq2seq.models.base import Vocabulary
    from seq2seq.models.build import build_model
    from seq2seq.system.device import build_runtime, keep_freed_memory, set_threads
    from seq2seq.system.distributed import World
    from seq2seq.training.step import TrainStep

    config = composed([*work.keys, *overrides])
    if work.width is not None:
        config = composed([*width_keys(config.model.family, work.width), *overrides])
    set_threads(config.trainer.threads)
    keep_freed_memory()
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    torch.manual_seed(config.seed)
    model = build_model(config.model, Vocabulary(work.vocabulary, work.vocabulary, joint=True))
    step = TrainStep(
        model.to(runtime.device).train(), config.trainer, config.optim, runtime=runtime, world=World(), seed=config.seed
    )
    rows = max(1, work.tokens // max(work.source, work.target))
    src, tgt = (torch.randint(4, work.vocabulary, (rows, length)) for length in (work.source, work.target))
    batch = Batch(src, tgt, torch.arange(tgt.numel()), tgt.flatten(), torch.arange(rows))
    batches = StepBatches([MicroBatch(batch, 1.0)], batch.tokens, 0.0, epoch=0, position=1, epoch_size=1)
    measured = Measured([], batch.tokens, own_mb=runtime.peak_memory_mb())
    for number in range(steps + 1):
        began = time.perf_counter()
        step.run(batches, step=number, lr=1e-4)
        step.window.skipped_in_a_row()  # waits for the device
        measured.seconds += [time.perf_counter() - began] if number else []  # the first one is slower
        measured.peak_mb = runtime.peak_memory_mb()
        if step.splits:
            measured.problem = "out of memory"
        connection.send(measured)
        if measured.problem:
            return


def measure(work: Work, overrides: Sequence[str], *, steps: int, limit: float) -> Measured:
    """Trains in a process of its own, for `limit` seconds at most."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(theirs, work, overrides, steps), daemon=True)
    process.start()
    theirs.close()
    measured, end = Measured([]), time.monotonic() + limit
    try:
        while len(measured.seconds) < steps and measured.problem is None:
            if ours.poll(max(0.0, end - time.monotonic())):
                measured = ours.recv()
            elif measured.seconds:
                break  # fewer updates than asked for will do
            else:
                measured.problem = f"over {limit:g} s"
    except EOFError:
        process.join()
        measured.problem = f"ended with code {process.exitcode}"  # -9 is how Linux ends it when memory is out
    finally:
        process.kill()
        process.join()
        ours.close()
    return measured


def row(point: int, measured: Measured, first: Measured | None) -> list[str]:
    """Cells of a table; `first` is what growth is told against, None where no point has figures."""
    if measured.problem is not None:
        return [f"{point:,}", measured.problem, *[""] * 6]
    token = measured.step() / measured.target_tokens
    growth = "" if first is None else f"{token * first.target_tokens / first.step():.2f}"
    own = (measured.peak_mb - measured.own_mb) * 2**10 / measured.target_tokens
    return [
        f"{point:,}",
        f"{measured.step():.2f}",
        f"{1 / token:,.0f}",
        f"{1e6 * token:,.0f}",
        growth,
        f"{measured.own_mb:,.0f}",
        f"{measured.peak_mb:,.0f}",
        f"{own:,.0f}",
    ]


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for seq2seq train; before --points")
    parser.add_argument("--points", nargs="+", type=int, help="other points of the axis")
    parser.add_argument("--steps", type=int, default=4, help="updates that count; one more warms up")
    parser.add_argument("--limit", type=float, default=40.0, help="seconds of a point, its start counted")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    axis = AXES[options.axis]
    found: dict[int, Measured] = {}
    for point in options.points or axis.points:
        found[point] = measure(axis.work(point), options.overrides, steps=options.steps, limit=options.limit)
        print(f"{options.axis} {point}: {found[point]}", file=sys.stderr, flush=True)
    first = next((one for one in found.values() if one.problem is None), None)
    head = [options.axis, "s a step", "target tokens/s", "µs a token", "× the first", "MiB before", "peak MiB",
            "KiB a token"]  # fmt: skip
    print(table(head, [row(point, measured, first) for point, measured in found.items()]))
    if options.json is not None:
        figures: dict[str, Any] = {str(point): asdict(measured) for point, measured in found.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
