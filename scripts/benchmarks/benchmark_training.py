"""`benchmark.py train`: compares this package's training step with other loops and with the matrix product rate."""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bare_loop import BareLoop, TrainingTask
from benchmark_corpus import compose_config, corpus_overrides
from benchmark_overrides import check_overrides
from benchmark_turns import Contender, Timings, table, take_turns
from matrix_products import MatrixProducts
from peers import supported_contenders

from seq2seq.config.schema import Config
from seq2seq.data.loader import BatchLoader
from seq2seq.data.prepare import PreparedData, prepare
from seq2seq.pipeline.build import build_training, start_runtime
from seq2seq.system.distributed import world_from_environment
from seq2seq.tokenizers.base import EOS_ID
from seq2seq.training import optim
from seq2seq.training.optim_config import resolve_horizon

# The settings of the other loops, regardless of an experiment; null threads means that --threads applies.
_FIXED = {"trainer.device": "cpu", "trainer.threads": "null", "optim.name": "adamw", "optim.schedule": "constant",
          "optim.ema_decay": 0.0}  # fmt: skip
_OPTIONS = {"trainer.precision": "--contenders, such as ours-bf16", "trainer.threads": "--threads",
            "trainer.batch_tokens": "--batch-tokens"}  # fmt: skip
FIXED_KEYS = {
    **{key: f"it is fixed at {value}" for key, value in _FIXED.items()},
    **{key: f"give {option}" for key, option in _OPTIONS.items()},
}


def prepare_data(config: Config) -> PreparedData:
    """Prepares tokenizers and stores, or loads them from the cache."""
    return prepare(
        config.data,
        config.tokenizer,
        cache_root=Path(config.cache_root),
        seed=config.seed,
        log=lambda line: print(line, file=sys.stderr),
    )


class OurLoop:
    """The training steps of `seq2seq train`: batches prefetched by a thread, updates, metrics for the log.

    Each turn starts at the beginning of the first epoch, so that all turns train on the same examples.
    """

    def __init__(self, overrides: list[str], precision: str, steps: int):
        fixed = [f"{key}={value}" for key, value in {**_FIXED, "trainer.precision": precision}.items()]
        self._config = config = compose_config([*overrides, *fixed])
        runtime = start_runtime(config.trainer)
        self._world = world_from_environment()
        data = prepare_data(config)
        self._step, self._stream = build_training(config, data, runtime=runtime, world=self._world)
        self._steps, self._done = steps, 0
        self._horizon = resolve_horizon(config.optim, max_steps=config.trainer.max_steps)
        self._step.warm_up_memory(self._stream.largest_batches(0))

    def turn(self) -> float:
        """Runs the steps of a turn; returns the mean loss per token."""
        for batches in islice(self._stream.steps(0, 0), self._steps):
            lr = optim.learning_rate(self._done + 1, self._config.optim, horizon=self._horizon)
            self._step.run(batches, step=self._done, lr=lr)
            self._done += 1
            self._world.max([0.0, 0, False])
        metrics = self._step.metrics.compute(self._world)
        self._step.metrics.reset()
        return metrics.loss / metrics.tokens

    def stats(self) -> dict[str, Any]:
        """Returns counts of a turn."""
        batches = list(islice(self._stream.steps(0, 0), self._steps))
        return {
            "tokens": sum(step.target_tokens for step in batches),
            "padding_share": sum(step.padding_share for step in batches) / len(batches),
            "parameters": sum(parameter.numel() for parameter in self._step.model.parameters()),
        }


def training_task(overrides: list[str], steps: int) -> TrainingTask:
    """Describes what our loop trains in a turn, for loops that do not use this package."""
    config = compose_config(overrides)
    data = prepare_data(config)
    loader = BatchLoader(
        lambda epoch: data.train,
        batch_tokens=config.trainer.batch_tokens,
        accumulate=config.trainer.accumulate,
        seed=config.seed,
    )
    batches = [
        np.concatenate([micro.batch.indices.numpy() for micro in step.micro_batches]).tolist()
        for step in islice(loader.steps(0, 0), steps)
    ]
    train = data.train
    return TrainingTask(
        model=asdict(config.model),
        vocab_size=data.tokenizers.target.vocab_size,
        batches=[
            [([*train.source_ids[i].tolist(), EOS_ID], [*train.target_ids[i].tolist(), EOS_ID]) for i in indices]
            for indices in batches
        ],
        label_smoothing=config.trainer.label_smoothing,
        optim=asdict(config.optim),
        seed=config.seed,
    )


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the loops in `options.contenders`; prints a table and returns all results."""
    check_overrides(options.overrides, FIXED_KEYS)
    overrides = corpus_overrides(
        options.folder, options.pairs, [f"trainer.batch_tokens={options.batch_tokens}", *options.overrides]
    )
    task = training_task(overrides, options.steps)
    options.contenders = supported_contenders(options.contenders, task.model)
    precisions = sorted({name.partition("-")[2] for name in options.contenders})
    contenders = [_contender(name, task, overrides) for name in options.contenders]
    contenders += [Contender(f"products-{p}", MatrixProducts, (task, p)) for p in precisions]
    measured = take_turns(
        contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads, profiles=options.profile
    )
    require_equal_work([measured[name] for name in options.contenders])
    rows = {name: _results(name, measured, task) for name in options.contenders}
    rates = {p: statistics.median(measured[f"products-{p}"].results) for p in precisions}
    print(_table(rows))
    formatted_rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in rates.items())
    print(f"\n{options.steps} steps per turn; matrix products alone: {formatted_rates}")
    return {"contenders": rows, "flops_per_second": rates, "steps": options.steps, "overrides": overrides}


def _contender(name: str, task: TrainingTask, overrides: list[str]) -> Contender:
    framework, _, precision = name.partition("-")
    if framework == "ours":
        return Contender(name, OurLoop, (overrides, precision, len(task.batches)))
    if framework == "hf":
        from hugging_face_loop import HuggingFaceLoop

        return Contender(name, HuggingFaceLoop, (task, precision))
    return Contender(name, BareLoop, (task, precision))


def require_equal_work(measured: Sequence[Timings]) -> None:
    """Exits if the loops did not train models of the same size on the same tokens."""
    for key, tolerance in (("parameters", 0.01), ("tokens", 0.0)):
        counts = [loop.stats[key] for loop in measured]
        if max(counts) > (1 + tolerance) * min(counts):
            sys.exit(f"not the same work: {key} {', '.join(f'{loop.name} {loop.stats[key]:,}' for loop in measured)}")


def _results(name: str, measured: Mapping[str, Timings], task: TrainingTask) -> dict[str, Any]:
    """Returns the results of a loop, with ratios relative to the fastest bare loop if there is one."""
    loop, products = measured[name], measured[f"products-{name.partition('-')[2]}"]
    bare = min((m for key, m in measured.items() if key.startswith("bare-")), key=Timings.median, default=None)
    flops = products.stats["flops"] / loop.median()
    return {
        "target_tokens_per_sec": loop.stats["tokens"] / loop.median(),
        "sentences_per_sec": sum(map(len, task.batches)) / loop.median(),
        "times_bare": bare and loop.speedup_over(bare),
        "times_bare_cpu": bare and loop.cpu_speedup_over(bare),
        "peak_mb": loop.peak_mb,
        "matmul_share": flops / statistics.median(products.results),
        "spread": loop.spread(),
        **loop.stats,
        "losses": loop.results,
        "seconds": loop.seconds,
        "cpu_seconds": loop.cpu_seconds,
    }


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["loop", "target tokens/s", "sentences/s", "× bare", "× bare, CPU time", "peak MiB", "padding %",
            "of the matrix rate %", "spread %", "loss"]  # fmt: skip
    return table(
        head,
        [
            [
                name,
                f"{row['target_tokens_per_sec']:,.0f}",
                f"{row['sentences_per_sec']:,.0f}",
                *("" if row[key] is None else f"{row[key]:.2f}" for key in ("times_bare", "times_bare_cpu")),
                f"{row['peak_mb']:,.0f}",
                *(f"{100 * row[key]:.1f}" for key in ("padding_share", "matmul_share", "spread")),
                f"{row['losses'][-1]:.3f}",
            ]
            for name, row in rows.items()
        ],
    )
