#!/usr/bin/env python3
"""Measures the cost of saving a checkpoint: how long training waits for it and how long the background write takes.

    python scripts/benchmarks/measure_saves.py --folder /tmp/saves
    python scripts/benchmarks/measure_saves.py --folder /tmp/saves --device cuda --batch-tokens 25000

Trains Transformers of about 1, 10 and 60 million parameters on random tokens, with Adam as in a run. For each, prints
the time per step; the copy that training waits for; the background write, flushed to the disk; how much slower steps
are during the write; and the total cost as a share of the time between two saves (`trainer.save_every`).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from random_updates import build_step, random_batches
from torch import Tensor

from seq2seq.config.schema import Config
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.pipeline.build import start_runtime
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.system.config import Device
from seq2seq.system.device import Runtime
from seq2seq.training.background import Background
from seq2seq.training.config import TrainerConfig

LENGTH = 32  # tokens per source and target
SIZES = {
    4_000: TransformerConfig(d_model=128, d_ff=512, num_heads=4, encoder_layers=2, decoder_layers=2),
    16_000: TransformerConfig(d_model=256, d_ff=1024, num_heads=4, encoder_layers=3, decoder_layers=3),
    32_000: TransformerConfig(d_model=512, d_ff=2048, num_heads=8, encoder_layers=6, decoder_layers=6),
}


def seconds(work: Callable[[], object], runtime: Runtime) -> float:
    """Returns how long a call takes, including the work that it queues on the device."""
    began = time.perf_counter()
    work()
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def timed_save(store: CheckpointStore, step: int, tensors: dict[str, dict[str, Tensor]], times: list[float]) -> None:
    """Saves a checkpoint and appends the seconds it took to `times`."""
    began = time.perf_counter()
    store.save(step, tensors, {})
    times.append(time.perf_counter() - began)


def measure(vocabulary: int, config: TransformerConfig, options: argparse.Namespace, *, runtime: Runtime) -> list[str]:
    """Measures one model; returns the cells of a row."""
    step = build_step(Config(model=config), vocabulary, runtime)
    batches = random_batches(vocabulary, tokens=options.batch_tokens, source=LENGTH, target=LENGTH)
    store = CheckpointStore(options.folder / f"{vocabulary}")
    update = partial(step.run, batches, step=0, lr=1e-4)
    for _ in range(3):
        update()
    plain = statistics.median(seconds(update, runtime) for _ in range(options.steps))
    copies: list[float] = []
    writes: list[float] = []
    slowed: list[float] = []
    with Background() as background:
        for save in range(options.saves):
            tensors = step.tensors()  # the second call is timed: the first may allocate memory
            copies.append(seconds(step.tensors, runtime))
            background.submit(partial(timed_save, store, save, tensors, writes))
            while len(writes) == save:
                slowed.append(seconds(update, runtime))
            store.prune([save])
    copy, write, meanwhile = (statistics.median(values) for values in (copies, writes, slowed))
    delay = copy + write * (1 - plain / max(meanwhile, plain))
    size = sum(file.stat().st_size for file in store.resolve(str(options.saves - 1)).iterdir())
    return [
        f"{sum(p.numel() for p in step.model.parameters()) / 1e6:.1f}", f"{size / 2**20:.0f}", f"{1000 * plain:.1f}",
        f"{1000 * copy:.1f}", f"{1000 * write:.0f}", f"{100 * (meanwhile / plain - 1):+.0f} %",
        f"{100 * delay / (options.save_every * plain):.3f} %",
    ]  # fmt: skip


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to write checkpoints: on the disk to measure")
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.cpu)
    parser.add_argument(
        "--batch-tokens", type=int, default=512, help="source tokens per step, and as many target tokens"
    )
    parser.add_argument("--steps", type=int, default=10, help="number of steps timed without a save")
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--save-every", type=int, default=TrainerConfig.save_every)
    options = parser.parse_args()
    runtime = start_runtime(TrainerConfig(device=options.device))
    titles = ("M parameters", "MiB on disk", "step ms", "copy ms", "write ms", "steps meanwhile",
              f"share of {options.save_every} steps")  # fmt: skip
    print(f"| {' | '.join(titles)} |\n|{' ---: |' * len(titles)}")
    for vocabulary, config in SIZES.items():
        print(f"| {' | '.join(measure(vocabulary, config, options, runtime=runtime))} |", flush=True)


if __name__ == "__main__":
    main()
