"""The batches of each step follow the plan of the epoch, on each rank and from any position."""

import threading
import time
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.data.batching import collate, plan_epoch
from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.loader import BatchLoader, StepBatches
from seq2seq.data.ragged import RaggedArray
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.system.distributed import World
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

BUDGET, SEED = 35, 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Sources of 2 to 12 words, targets of 1 to 7."""
    random = np.random.default_rng(3)
    texts = [
        (" ".join("a" * int(random.integers(2, 13))), " ".join("b" * int(random.integers(1, 8)))) for _ in range(60)
    ]
    folder = tmp_path_factory.mktemp("store")
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=20)
    tokenizers = train_tokenizers(lambda: iter(["a b"]), lambda: iter(["a b"]), config, seed=1)
    write_store(folder, [Example(s, t, (t,)) for s, t in texts], tokenizers, DataConfig(), training=False)
    return TokenStore(folder)


def plan(store: TokenStore, epoch: int) -> RaggedArray:
    lengths = (store.source_lengths, store.target_lengths)
    return plan_epoch(*lengths, batch_tokens=BUDGET, seed=SEED, epoch=epoch)


def build(store_for_epoch: Callable[[int], TokenStore], **changes: Any) -> BatchLoader:
    return BatchLoader(store_for_epoch, **{"batch_tokens": BUDGET, "accumulate": 2, "seed": SEED} | changes)


def taken(loader: BatchLoader, count: int, *, epoch: int = 0, position: int = 0) -> list[StepBatches]:
    steps = loader.steps(epoch, position)
    try:
        return list(islice(steps, count))
    finally:
        steps.close()


def test_each_step_takes_the_next_micro_batches_of_the_epoch_and_then_of_the_next(store: TokenStore) -> None:
    plans = [plan(store, epoch) for epoch in range(3)]
    assert len(plans[0]) % 2 == 1, "the last step of an epoch is a short one"
    expected = [(epoch, start) for epoch, epoch_plan in enumerate(plans) for start in range(0, len(epoch_plan), 2)]
    steps = taken(build(lambda epoch: store), len(expected))
    for step, (epoch, start) in zip(steps, expected, strict=True):
        end = min(start + 2, len(plans[epoch]))
        assert (step.epoch, step.position, step.epoch_size) == (epoch, end, len(plans[epoch]))
        assert [micro.weight for micro in step.micro_batches] == (end - start) * [1.0]
        for micro, number in zip(step.micro_batches, range(start, end), strict=True):
            wanted = collate(store, plans[epoch][number])
            assert all(torch.equal(getattr(micro.batch, name), tensor) for name, tensor in vars(wanted).items())
        batches = [micro.batch for micro in step.micro_batches]
        assert step.target_tokens == sum(batch.tokens for batch in batches)
        assert step.padding_share == pytest.approx(np.mean([batch.padding_share for batch in batches]))


def test_ranks_share_each_step_and_the_last_one_of_an_epoch_has_fillers(store: TokenStore) -> None:
    """Micro-batches go to the ranks in turn; a rank without one computes a filler batch of weight 0."""
    size, epoch_plan = 4, plan(store, 0)
    count = -(-len(epoch_plan) // (2 * size))
    assert len(epoch_plan) % (2 * size) in (1, 2, 3), "the last step has less than one micro-batch per rank"
    ranks = [taken(build(lambda epoch: store, world=World(rank, size)), count) for rank in range(size)]
    for number, steps in enumerate(zip(*ranks, strict=True)):
        start = number * 2 * size
        end = min(start + 2 * size, len(epoch_plan))
        assert len({len(step.micro_batches) for step in steps}) == 1, "each rank takes part in each all-reduce"
        assert {step.position for step in steps} == {end}
        tokens = sum(store.target_lengths[epoch_plan[each]].sum() for each in range(start, end))
        assert {step.target_tokens for step in steps} == {tokens}, "over all ranks"
        for rank, step in enumerate(steps):
            for turn, micro in enumerate(step.micro_batches):
                index = start + turn * size + rank
                assert micro.weight == float(index < end)
                if index < end:
                    assert micro.batch.indices.tolist() == epoch_plan[index].tolist()
    assert [len(ranks[0][-1].micro_batches), sum(steps[-1].micro_batches[0].weight == 0 for steps in ranks)] == [
        1, size - len(epoch_plan) % (2 * size),
    ]  # fmt: skip


@pytest.mark.parametrize("consumed", [1, 3, 40])
def test_a_loader_resumes_from_any_position(store: TokenStore, consumed: int) -> None:
    count = 12  # more than an epoch
    whole = taken(build(lambda epoch: store), consumed + count)
    last = whole[consumed - 1]
    rest = taken(build(lambda epoch: store), count, epoch=last.epoch, position=last.position)
    for one, other in zip(rest, whole[consumed:], strict=True):
        assert (one.epoch, one.position) == (other.epoch, other.position)
        pairs = zip(one.micro_batches, other.micro_batches, strict=True)
        assert all(torch.equal(a.batch.src, b.batch.src) and torch.equal(a.batch.indices, b.batch.indices)
                   for a, b in pairs)  # fmt: skip


def test_each_epoch_asks_once_for_its_examples(store: TokenStore) -> None:
    """Even after `largest_batches`; and it prefetches no more than a few steps."""
    asked: list[int] = []
    loader = build(lambda epoch: (asked.append(epoch), store)[1], accumulate=1000)
    loader.largest_batches(0)
    steps = loader.steps(0, 0)
    assert next(steps).epoch == 0
    time.sleep(0.3)  # for the thread to get as far as it will
    steps.close()
    assert asked == list(range(len(asked)))
    assert len(asked) <= 1 + BatchLoader.PREFETCH + 1


def test_an_overfitted_epoch_is_the_start_of_the_first(store: TokenStore) -> None:
    """Two steps of two and one micro-batches, whatever the epoch; a position in it is resumed as in any other."""
    asked = []

    def store_for_epoch(epoch: int) -> TokenStore:
        asked.append(epoch)
        return store

    loader, first = build(store_for_epoch, overfit_batches=3), plan(store, 0)
    steps = [*taken(loader, 5), *taken(loader, 1, epoch=1, position=2)]
    assert [(step.epoch, step.position, step.epoch_size) for step in steps] == [
        (0, 2, 3), (0, 3, 3), (1, 2, 3), (1, 3, 3), (2, 2, 3), (1, 3, 3)
    ]  # fmt: skip
    for step in steps:
        expected = [first[index] for index in ((0, 1) if step.position == 2 else (2,))]
        for micro, examples in zip(step.micro_batches, expected, strict=True):
            assert micro.batch.indices.tolist() == examples.tolist()
        assert step.target_tokens == sum(int(store.target_lengths[examples].sum()) for examples in expected)
    assert set(asked) == {0}, "subwords are not drawn again"
    of_epoch = {tuple(first[index]) for index in range(3)}
    assert {tuple(micro.batch.indices.tolist()) for micro in loader.largest_batches(7)} <= of_epoch
    assert taken(build(store_for_epoch, overfit_batches=10_000), 1)[0].epoch_size == len(first)


def test_the_largest_batches_are_found(store: TokenStore) -> None:
    """By positions, and by pairs of positions, as in attention: out of memory shows before the first step."""
    epoch_plan = plan(store, 0)
    batches = [collate(store, epoch_plan[number]) for number in range(len(epoch_plan))]
    largest_batches = [micro.batch for micro in build(lambda epoch: store).largest_batches(0)]
    shapes = [(len(batch.src), batch.src.size(1) + batch.tgt_in.size(1)) for batch in batches]
    found = [(len(batch.src), batch.src.size(1) + batch.tgt_in.size(1)) for batch in largest_batches]
    assert max(examples * width for examples, width in found) == max(examples * width for examples, width in shapes)
    assert max(examples * width**2 for examples, width in found) == max(e * width**2 for e, width in shapes)
    assert len(found) <= 2 < len(shapes)


def test_a_corpus_without_examples_is_refused() -> None:
    nothing: Any = SimpleNamespace(source_lengths=np.zeros(0, np.int32), target_lengths=np.zeros(0, np.int32))
    with pytest.raises(UserError, match="no example is left"):
        taken(build(lambda epoch: nothing), 1)


def test_an_error_in_the_thread_is_raised_with_its_micro_batch() -> None:
    class Store:
        """Its files are gone once the epoch has been planned."""

        source_lengths = target_lengths = np.full(30, 5, dtype=np.int32)

        @property
        def source_ids(self) -> Any:
            raise OSError("the file has vanished")

    vanished: Any = Store()
    with pytest.raises(OSError, match="vanished") as caught:
        taken(build(lambda epoch: vanished, batch_tokens=50), 1)
    assert caught.value.__notes__ == ["while preparing micro-batch 0 of 3 of epoch 0"]


def test_a_dead_thread_is_not_waited_for(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda self: None)
    with pytest.raises(RuntimeError, match="has ended"):
        taken(build(lambda epoch: store), 1)


def test_no_thread_outlives_its_loader(store: TokenStore) -> None:
    before = threading.active_count()
    steps = build(lambda epoch: store).steps(0, 0)
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before
