"""Recomputes the batch that ended a run because its loss or gradient was not finite.

    python scripts/reliability/replay_batch.py outputs/mine [KEY=VALUE ...]

`checkpoints/failed` of the run holds the weights and the batch; the seed of the run reproduces its dropout. Overrides
change how it is computed, for example trainer.precision=fp32. Prints the loss of each micro-batch, the examples whose
own loss is not finite, and the first operation whose gradient is not finite.
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
from seq2seq.models.output import LossSums
from seq2seq.pipeline.load import load_model
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import require_run
from seq2seq.system.device import Runtime, build_runtime, seed_step
from seq2seq.system.plain_yaml import read_mapping
from seq2seq.tokenizers.pair import load_tokenizers


def main() -> int:
    """Replays the batch of a run; returns 1 if all of it is finite now, 0 if the failure is reproduced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change how it is computed")
    options = parser.parse_args()
    folder = require_run(str(options.run))
    values = OmegaConf.merge(read_mapping(folder.config), OmegaConf.from_dotlist(options.overrides))
    config = parse(values)  # type: ignore[arg-type]
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    model, step = load_model(folder, config, load_tokenizers(folder.tokenizer), checkpoint="failed", runtime=runtime)
    model.train()
    objective = Objective(model)
    failed = CheckpointStore(folder.checkpoints).load("failed", files=["batch"]).tensors["batch"]
    ranks: dict[int, dict[str, dict[str, torch.Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in failed.items():
        rank_name, micro, field = name.split(".")
        ranks[int(rank_name.removeprefix("rank"))][micro][field] = tensor
    finite = True
    for rank, micro_batches in sorted(ranks.items()):
        seed_step(config.seed, step - 1, rank)
        for micro, tensors in sorted(micro_batches.items()):
            batch = Batch(**tensors)
            print(f"step {step}, rank {rank}, {micro}: {len(batch.indices)} examples, {batch.tokens} target tokens")
            finite &= _replay(objective, batch, config, runtime)
    return int(finite)


def _replay(objective: Objective, batch: Batch, config: Config, runtime: Runtime) -> bool:
    """Prints the loss and gradient of a micro-batch; returns whether all of it is finite."""
    on_device = batch.to(runtime.device)
    try:
        with torch.autograd.detect_anomaly(check_nan=True):
            loss = _loss(objective, on_device, config, runtime)
            loss.backward()  # type: ignore[no-untyped-call]
        failure = None
    except RuntimeError as error:
        failure = str(error)
    print(f"  loss per target token: {float(loss) / batch.tokens:.4f}")
    if failure is not None:
        print(f"  gradient: {failure}")
    with torch.no_grad():
        non_finite = [
            int(example.indices)
            for example in _examples(on_device)
            if not _loss(objective, example, config, runtime).isfinite()
        ]
    listed = ", ".join(map(str, non_finite)) or "none"
    print(f"  examples without a finite loss of their own: {listed} (indices in the store)")
    norms = [p.grad.norm() for p in objective.parameters() if p.grad is not None]
    return failure is None and not non_finite and all(bool(norm.isfinite()) for norm in norms)


def _loss(objective: Objective, batch: Batch, config: Config, runtime: Runtime) -> torch.Tensor:
    with runtime.autocast():
        sums: LossSums = objective(batch.src, batch.tgt_in, batch.rows, batch.labels, config.trainer.label_smoothing)
    return sums.loss


def _examples(batch: Batch) -> list[Batch]:
    """Splits a batch into its examples, with the padding of the batch."""
    if len(batch.indices) == 1:
        return [batch]
    first, second = batch.halves()
    return [*_examples(first), *_examples(second)]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"replay_batch: {error}")
