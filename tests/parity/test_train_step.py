"""Ten updates of the real training step against a loop that anyone can check: torch's optimizer, loss, clipping.

What both share is the model up to its features, and the project's seeding, so that dropout draws the same masks.
"""

import copy
import math
import os
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seq2seq.data.batching import Batch
from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime, seed_step
from seq2seq.system.distributed import World
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig, OptimizerName, resolve_horizon
from seq2seq.training.step import TrainStep

V, STEPS, WARMUP, LR, SMOOTHING, SEED = 23, 10, 4, 0.01, 0.2, 7
CPU = torch.device("cpu")
# Adam divides by the root of the second moment: an epsilon above rounding noise keeps gradients of zero (the keys'
# biases, which a softmax does not see) from becoming whole steps.
OPTIM = OptimConfig(lr=LR, warmup_steps=WARMUP, clip_norm=0.1, weight_decay=0.1, eps=1e-4, betas=[0.8, 0.95])
FAMILIES = ["transformer", "gru", "deep gru"]


def model(family: str, dropout: float) -> Seq2Seq:
    torch.manual_seed(3)
    config: Any = TransformerConfig(
        d_model=16, d_ff=32, num_heads=2, encoder_layers=2, decoder_layers=2, dropout=dropout,
        attention_dropout=dropout / 2, activation_dropout=dropout / 2,
    )  # fmt: skip
    if "gru" in family:
        layers = 2 if "deep" in family else 1
        config = GRUConfig(d_model=16, embedding_size=12, encoder_size=8, attention_size=8, encoder_layers=layers,
                           decoder_layers=layers, dropout=dropout)  # fmt: skip
    return build_model(config, Vocabulary(V, V, joint=True)).train()


def batches(count: int) -> list[Batch]:
    """Batches of sentences of several lengths, padded."""
    draw = torch.Generator().manual_seed(11)
    found = []
    for _ in range(count):
        src, tgt = torch.zeros(4, 7, dtype=torch.int64), torch.zeros(4, 6, dtype=torch.int64)
        for row in range(4):
            source, target = (int(torch.randint(1, most, (1,), generator=draw)) for most in (7, 6))
            src[row, :source] = torch.randint(4, V, (source,), generator=draw)
            src[row, source] = 3
            tgt[row, :target] = torch.randint(4, V, (target,), generator=draw)
            tgt[row, target] = 3
        tgt_in = F.pad(tgt, (1, 0), value=2)[:, :-1]
        rows = tgt.flatten().nonzero().squeeze(1)
        found.append(Batch(src, tgt_in, rows, tgt.flatten()[rows], torch.arange(4)))
    return found


def inverse_sqrt(update: int) -> float:
    """Learning rate relative to its peak at update `update`, counted from 1: Vaswani et al. (2017, equation 3)."""
    return min(update / WARMUP, math.sqrt(WARMUP / update))


def plain_loop(model: nn.Module, steps: list[list[list[Batch]]], optim: OptimConfig) -> list[float]:
    """Trains on steps of ranks of micro-batches; returns the norms of the gradients before they are clipped."""
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if optim.name is OptimizerName.adamw else torch.optim.Adam
    optimizer = kind(groups, lr=LR, betas=tuple(optim.betas), eps=optim.eps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda behind: inverse_sqrt(behind + 1))
    norms = []
    for step, ranks in enumerate(steps):
        tokens = sum(len(batch.labels) for micro_batches in ranks for batch in micro_batches)
        for rank, micro_batches in enumerate(ranks):
            seed_step(SEED, step, rank)
            for batch in micro_batches:
                decoded = model.decode(batch.tgt_in, model.encode(batch.src, batch.src != 0))
                features = decoded.features.flatten(0, 1)[batch.rows]
                if model.output.projection is not None:
                    features = model.output.projection(features)
                logits = features @ model.output.weight.t()
                loss = F.cross_entropy(logits, batch.labels, label_smoothing=SMOOTHING, reduction="sum")
                (loss / tokens).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return norms


def real_steps(
    model: Seq2Seq, steps: list[list[list[Batch]]], optim: OptimConfig, world: World | None = None
) -> tuple[dict[str, Tensor], list[float]]:
    """`plain_loop` with `TrainStep`, called as the trainer calls it."""
    from seq2seq.training import optim as schedules

    world = world or World()
    runtime = Runtime(CPU, Precision.fp32)
    step = TrainStep(model, TrainerConfig(label_smoothing=SMOOTHING), optim, runtime=runtime, world=world, seed=SEED)
    norms = []
    for index, ranks in enumerate(steps):
        tokens = sum(len(batch.labels) for micro_batches in ranks for batch in micro_batches)
        own = [MicroBatch(batch, 1.0) for batch in ranks[world.rank]]
        rate = schedules.learning_rate(index + 1, optim, horizon=resolve_horizon(optim, max_steps=STEPS))
        step.run(StepBatches(own, tokens, 0.0, epoch=0, position=1, epoch_size=STEPS), step=index, lr=rate)
        norms.append(step.metrics.compute(World()).grad_norm)
        step.metrics.reset()
    return dict(model.state_dict()), norms


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_ten_updates_equal_a_plain_loop(family: str, micro_batches: int, dropout: float) -> None:
    drawn = batches(STEPS * micro_batches)
    steps = [[drawn[i : i + micro_batches]] for i in range(0, len(drawn), micro_batches)]
    ours = model(family, dropout)
    theirs = copy.deepcopy(ours)
    before = copy.deepcopy(dict(ours.state_dict()))
    weights, norms = real_steps(ours, steps, OPTIM)
    expected = plain_loop(theirs, steps, OPTIM)
    assert min(expected) > OPTIM.clip_norm, "every gradient is to be clipped"
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=0)
    assert_close(weights, dict(theirs.state_dict()))
    moved = max(float((weights[name] - before[name]).abs().max()) for name in before)
    assert moved > 0.02, "ten updates move the weights far beyond the tolerance"


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_each_optimizer_equals_torchs(optimizer: OptimizerName) -> None:
    optim = OptimConfig(name=optimizer, lr=LR, warmup_steps=WARMUP, weight_decay=0.2, eps=1e-4)
    steps = [[[batch]] for batch in batches(STEPS)]
    ours = model("gru", 0.0)
    theirs = copy.deepcopy(ours)
    weights, _ = real_steps(ours, steps, optim)
    plain_loop(theirs, steps, optim)
    assert_close(weights, dict(theirs.state_dict()))


def shared_steps() -> list[list[list[Batch]]]:
    """Steps of two ranks with two micro-batches each."""
    drawn = batches(4 * STEPS)
    return [[drawn[i : i + 2], drawn[i + 2 : i + 4]] for i in range(0, len(drawn), 4)]


def train_as_rank(folder: Path) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    world.start("cpu", timeout_minutes=1.0)
    for family in FAMILIES[:2]:
        for dropout in (0.0, 0.3):
            weights, _ = real_steps(model(family, dropout), shared_steps(), OPTIM, world)
            save_file(
                {name: t.clone() for name, t in weights.items()},
                folder / f"{family}-{dropout}-{world.rank}.safetensors",
            )
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    assert processes.run_ranks(train_as_rank, folder) == [0, 0]
    return folder


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("family", FAMILIES[:2])
def test_two_ranks_equal_a_plain_loop(family: str, dropout: float, trained_by_two: Path) -> None:
    """Each rank draws masks of its own; the gradient is that of all micro-batches together."""
    alone = model(family, dropout)
    plain_loop(alone, shared_steps(), OPTIM)
    for rank in range(2):
        weights = load_file(trained_by_two / f"{family}-{dropout}-{rank}.safetensors")
        assert_close(weights, dict(alone.state_dict()))


@pytest.mark.parametrize("change", [{"seed": 2}, {"step": 6}, {"rank": 1}])
def test_steps_ranks_and_seeds_draw_masks_of_their_own(change: dict[str, int]) -> None:
    """The plain loop seeds as the project does, so that this is left to see that the seed depends on all three."""
    base = {"seed": 1, "step": 5, "rank": 0}
    drawn = []
    for values in (base, base, base | change):
        seed_step(values["seed"], values["step"], values["rank"])
        drawn.append(torch.rand(100))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
