"""One update: what is skipped, what is halved, and that neither leaves a trace."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import distributed

from seq2seq.data.batching import Batch
from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.errors import TrainingError
from seq2seq.models.base import Memory, Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.config import TieEmbeddings
from seq2seq.models.transformer import Transformer
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig
from seq2seq.training.step import TrainStep

BAD = 9  # a token whose embedding is too large to compute with
CPU = torch.device("cpu")


def model() -> Seq2Seq:
    torch.manual_seed(3)
    config = TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0,
                               tie_embeddings=TieEmbeddings.none)  # fmt: skip
    return build_model(config, Vocabulary(12, 12, joint=False))


def batch(examples: int, *, token: int = 5, length: int = 4) -> Batch:
    """Sources of one token, targets of another, no padding."""
    src = torch.full((examples, length + 1), token)
    src[:, -1] = 3
    tgt = torch.randint(4, 8, (examples, length), generator=torch.Generator().manual_seed(examples))
    labels = torch.cat([tgt, torch.full((examples, 1), 3)], dim=1)
    tgt_in = torch.cat([torch.full((examples, 1), 2), tgt], dim=1)
    return Batch(src, tgt_in, torch.arange(labels.numel()), labels.flatten(), torch.arange(examples))


def step_of(*batches: Batch) -> StepBatches:
    return StepBatches(
        [MicroBatch(b, 1.0) for b in batches], sum(b.tokens for b in batches), 0.0, epoch=0, position=1, epoch_size=9
    )


def test_a_micro_batch_that_only_fills_up_counts_for_nothing() -> None:
    """A rank that has none left computes another's with weight 0, for the ranks must do the same."""
    steps = step_of(batch(3)), step_of(batch(3), batch(5))
    steps[1].micro_batches[1] = MicroBatch(batch(5), 0.0)
    weights, flops = [], []
    for each in steps:
        step = train_step(model())
        step.run(replace(each, target_tokens=steps[0].target_tokens), step=0, lr=0.1)
        weights.append(step.model.state_dict())
        flops.append(step.metrics.flops)
    assert flops[0] == flops[1] > 0
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def train_step(
    own: Seq2Seq, precision: Precision = Precision.fp32, *, world: World | None = None, **optim: Any
) -> TrainStep:
    return TrainStep(
        own, TrainerConfig(label_smoothing=0.0), OptimConfig(**optim), runtime=Runtime(CPU, precision),
        world=world or World(), seed=1,
    )  # fmt: skip


def tensors(step: TrainStep) -> dict[str, torch.Tensor]:
    return {f"{file}.{name}": t for file, named in step.tensors().items() for name, t in named.items()}


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_a_step_without_a_finite_loss_leaves_no_trace(precision: Precision) -> None:
    """The reference never saw the bad batch; its other steps are the same, bit for bit."""
    first = model()
    with torch.no_grad():
        first.source_embedding.weight[BAD] = 3e38  # finite itself
    second = copy.deepcopy(first)
    disturbed, undisturbed = train_step(first, precision), train_step(second, precision)
    good, other, bad = step_of(batch(3)), step_of(batch(4)), step_of(batch(2), batch(2, token=BAD))
    disturbed.run(good, step=0, lr=0.01)
    before = tensors(disturbed)
    disturbed.run(bad, step=1, lr=0.01)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(disturbed).items())
    assert disturbed.metrics.consecutive_skips() == 1
    disturbed.run(other, step=2, lr=0.01)
    undisturbed.run(good, step=0, lr=0.01)
    undisturbed.run(other, step=2, lr=0.01)
    after, expected = tensors(disturbed), tensors(undisturbed)
    assert all(torch.equal(expected[name], tensor) for name, tensor in after.items())
    seen, wanted = disturbed.metrics.compute(World()), undisturbed.metrics.compute(World())
    assert (seen.loss, seen.tokens, seen.grad_norm) == (wanted.loss, wanted.tokens, wanted.grad_norm)
    assert (seen.skipped, wanted.skipped) == (1, 0)
    assert disturbed.metrics.consecutive_skips() == 0


def test_an_infinite_gradient_of_a_finite_loss_is_skipped() -> None:
    own = model()
    next(own.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    step = train_step(own)
    before = tensors(step)
    step.run(step_of(batch(3)), step=0, lr=0.01)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(step).items())
    assert step.metrics.compute(World()).skipped == 1


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine on which more than two examples do not fit: torch's own allocator fails, in the forward pass."""
    sizes: list[int] = []
    encode = Transformer.encode

    def greedy(self: Transformer, src: torch.Tensor, mask: torch.Tensor) -> Memory:
        sizes.append(len(src))
        if len(src) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)
        return encode(self, src, mask)

    monkeypatch.setattr(Transformer, "encode", greedy)
    return sizes


def test_a_batch_that_does_not_fit_is_halved(little_memory: list[int], caplog: pytest.LogCaptureFixture) -> None:
    halved, whole = train_step(model()), train_step(model())
    with caplog.at_level("WARNING", logger="seq2seq"):
        halved.run(step_of(batch(2), batch(7)), step=0, lr=0.01)
    assert halved.num_splits == 3  # 7 = 3 + 4, 3 = 1 + 2, 4 = 2 + 2, each found out by a failure
    assert len(caplog.records) == 1, "counted each time, said once"
    assert max(little_memory[-5:]) <= 2
    assert "trainer.batch_tokens=4096" in caplog.text
    parts = [batch(2), *[h for half in batch(7).halves() for h in half.halves()]]
    whole.run(step_of(*parts), step=0, lr=0.01)
    got, expected = tensors(halved), tensors(whole)
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def test_one_example_that_does_not_fit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Transformer, src: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(Transformer, "encode", greedy)
    with pytest.raises(TrainingError, match=r"single example of 5 source and 5 target tokens.*data\.max_source_length"):
        train_step(model()).warm_up_memory([MicroBatch(batch(3), 1.0)])


def test_several_ranks_end_together_instead(little_memory: list[int]) -> None:
    """One rank alone cannot halve its batch: the others would wait for its gradients."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        step = train_step(model(), world=World(rank=0, size=2))
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            step.run(step_of(batch(7)), step=0, lr=0.01)
    finally:
        distributed.destroy_process_group()
    assert step.num_splits == 0


def test_a_memory_warm_up_changes_nothing() -> None:
    warmed_up, plain = train_step(model()), train_step(model())
    warmed_up.warm_up_memory([MicroBatch(batch(5), 1.0)])
    for step in (warmed_up, plain):
        step.run(step_of(batch(3)), step=0, lr=0.01)
    got, expected = tensors(warmed_up), tensors(plain)
    assert all(torch.equal(expected[name], tensor) for name, tensor in got.items())
    assert warmed_up.metrics.steps == 1


def test_halves_hold_each_example_once() -> None:
    whole = batch(5)
    first, second = whole.halves()
    assert torch.equal(torch.cat([first.src, second.src]), whole.src)
    assert torch.equal(torch.cat([first.labels, second.labels]), whole.labels)
    assert torch.equal(torch.cat([first.rows, second.rows + first.tgt_in.numel()]), whole.rows)
    assert (len(first.indices), len(second.indices)) == (2, 3)


def test_weights_that_are_no_numbers_are_told() -> None:
    own = model()
    train_step(own).require_finite_weights()
    with torch.no_grad():
        own.output.weight.view(-1)[3] = 3e38  # large, not infinite
    train_step(own).require_finite_weights()
    with torch.no_grad():
        own.output.weight.view(-1)[3] = torch.nan
    with pytest.raises(TrainingError, match="finite"):
        train_step(own).require_finite_weights()


def test_a_checkpoint_holds_all_of_it(tmp_path: Any) -> None:
    """Saved and restored between two steps: the second is the same as without."""
    through, first, second = train_step(model(), ema_decay=0.9), train_step(model(), ema_decay=0.9), None
    for step in (through, first):
        step.run(step_of(batch(3)), step=0, lr=0.01)
    store = CheckpointStore(tmp_path)
    store.save(1, first.tensors(), {})
    second = train_step(model(), ema_decay=0.9)
    second.restore(store.load("1"), {})
    second.metrics.restore(first.metrics.to_json())
    for step in (through, second):
        step.run(step_of(batch(4)), step=1, lr=0.01)
    got, expected = tensors(second), tensors(through)
    assert got.keys() == expected.keys()
    assert all(torch.equal(expected[name], tensor) for name, tensor in got.items())
    assert second.metrics.compute(World()) == through.metrics.compute(World())


@pytest.mark.gpu
@pytest.mark.parametrize("token", [5, BAD])
def test_a_step_on_a_gpu_never_waits_for_it(token: int) -> None:
    """Also where the update is skipped: torch itself raises at a synchronisation."""
    device = torch.device("cuda")
    own = model().to(device)
    with torch.no_grad():
        own.source_embedding.weight[BAD] = 3e38
    step = TrainStep(own, TrainerConfig(label_smoothing=0.0), OptimConfig(), runtime=Runtime(device, Precision.bf16),
                     world=World(), seed=1)  # fmt: skip
    pinned = [batch(3, token=each).pin_memory() for each in (5, token)]
    step.run(step_of(pinned[0]), step=0, lr=0.01)  # first calls set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.run(step_of(pinned[1]), step=1, lr=0.01)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.metrics.consecutive_skips() == int(token == BAD)
