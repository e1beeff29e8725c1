"""Computes once more the batch that ended a run whose loss or gradient was no longer a finite number.

    python scripts/reliability/replay_batch.py outputs/mine [KEY=VALUE ...]

The run's folder `checkpoints/failed` holds the weights and the batch. With the run's seed the dropout is the same, too.
An override tries another way to compute it: trainer.precision=fp32, say. Prints the loss of each micro-batch, which
of its examples have a loss that is not finite on their own, and the operation whose gradient is the first that is not.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import torch
from omegaconf import OmegaConf

from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.errors import UserError
from seq2seq.models.objective import Objective
from seq2seq.pipeline.load import load_model
from seq2seq.runs.checkpoint import CheckpointStore
from seq2seq.runs.folder import require_run
from seq2seq.system.device import Runtime, build_runtime, seed_step
from seq2seq.system.plain_yaml import read_mapping


def main() -> int:
    """Replays the batch of a run; returns 1 if it is finite now, 0 if the fault shows again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="another way to compute it")
    options = parser.parse_args()
    folder = require_run(str(options.run))
    values = OmegaConf.merge(read_mapping(folder.config), OmegaConf.from_dotlist(options.overrides))
    config = parse(values)  # type: ignore[arg-type]
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    model, step = load_model(folder, config, checkpoint="failed", runtime=runtime)
    model.train()
    objective = Objective(model)
    failed = CheckpointStore(folder.checkpoints).load("failed", files=["batch"]).tensors["batch"]
    ranks: dict[int, dict[str, dict[str, torch.Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in failed.items():
        owner, micro, field = name.split(".")
        ranks[int(owner.removeprefix("rank"))][micro][field] = tensor
    finite = True
    for rank, micro_batches in sorted(ranks.items()):
        seed_step(config.seed, step - 1, rank)
        for micro, tensors in sorted(micro_batches.items()):
            batch = Batch(**tensors)
            print(f"step {step}, rank {rank}, {micro}: {len(batch.indices)} examples, {batch.tokens} target tokens")
            finite &= _replay(objective, batch, config, runtime)
    return int(finite)


def _replay(objective: Objective, batch: Batch, config: Config, runtime: Runtime) -> bool:
    """Prints what comes out of a micro-batch; returns whether all of it is finite."""
    on_device = batch.to(runtime.device)
    try:
        with torch.autograd.detect_anomaly(check_nan=True), runtime.autocast():
            sums = objective(on_device.src, on_device.tgt_in, on_device.rows, on_device.labels,
                             config.trainer.label_smoothing)  # fmt: skip
            sums.loss.backward()
        fault = None
    except RuntimeError as error:
        fault = str(error)
    print(f"  loss a target token: {float(sums.loss) / batch.tokens:.4f}")
    if fault is not None:
        print(f"  gradient: {fault}")
    odd = _odd_examples(objective, on_device, config, runtime)
    print(f"  examples without a finite loss of their own: {', '.join(map(str, odd)) or 'none'} (numbers in the store)")
    norms = [p.grad.norm() for p in objective.parameters() if p.grad is not None]
    return fault is None and not odd and all(bool(norm.isfinite()) for norm in norms)


@torch.no_grad()
def _odd_examples(objective: Objective, batch: Batch, config: Config, runtime: Runtime) -> list[int]:
    """Numbers of the examples whose loss alone is not a finite number."""
    odd = []
    width = batch.tgt_in.size(1)
    for place in range(len(batch.indices)):
        own = (batch.rows // width) == place
        with runtime.autocast():
            sums = objective(
                batch.src[place : place + 1], batch.tgt_in[place : place + 1], batch.rows[own] - place * width,
                batch.labels[own], config.trainer.label_smoothing,
            )  # fmt: skip
        if not sums.loss.isfinite():
            odd.append(int(batch.indices[place]))
    return odd


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"replay_batch: {error}")
