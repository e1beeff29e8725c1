"""The batches of each step: what the plan of the epoch says, whoever asks and from wherever on."""

import threading
import time
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.data.batching import EpochPlan, collate, plan_epoch
from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.loader import BatchLoader, LoaderConfig, StepBatches
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

BUDGET, SEED = 35, 7
CUT = {"max_source_length": 9, "max_target_length": 50}


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


def plan(store: TokenStore, epoch: int) -> EpochPlan:
    lengths = (store.source_lengths, store.target_lengths)
    return plan_epoch(*lengths, batch_tokens=BUDGET, seed=SEED, epoch=epoch)


def config(**changes: Any) -> LoaderConfig:
    return LoaderConfig(**{"batch_tokens": BUDGET, "accumulate": 2, "seed": SEED} | CUT | changes)


def taken(stream: BatchLoader, count: int, *, epoch: int = 0, position: int = 0) -> list[StepBatches]:
    steps = stream.steps(epoch, position)
    try:
        return list(islice(steps, count))
    finally:
        steps.close()


def test_each_step_takes_the_next_micro_batches_of_the_epoch_and_then_of_the_next(store: TokenStore) -> None:
    plans = [plan(store, epoch) for epoch in range(3)]
    assert len(plans[0]) % 2 == 1, "the last step of an epoch is a short one"
    expected = [(epoch, start) for epoch, of_epoch in enumerate(plans) for start in range(0, len(of_epoch), 2)]
    steps = taken(BatchLoader(lambda epoch: store, config()), len(expected))
    for step, (epoch, start) in zip(steps, expected, strict=True):
        end = min(start + 2, len(plans[epoch]))
        assert (step.epoch, step.position, step.epoch_size) == (epoch, end, len(plans[epoch]))
        assert [micro.weight for micro in step.micro_batches] == (end - start) * [1.0]
        for micro, number in zip(step.micro_batches, range(start, end), strict=True):
            wanted = collate(store, plans[epoch][number], **CUT)
            assert all(torch.equal(getattr(micro.batch, name), tensor) for name, tensor in vars(wanted).items())
        batches = [micro.batch for micro in step.micro_batches]
        assert step.target_tokens == sum(batch.tokens for batch in batches)
        assert step.padding_share == pytest.approx(np.mean([batch.padding_share for batch in batches]))


def test_ranks_share_each_step_and_the_last_one_of_an_epoch_is_company(store: TokenStore) -> None:
    """Rank by rank in turn; where nothing is left for a rank it computes a batch that counts for nothing."""
    size, of_epoch = 4, plan(store, 0)
    count = -(-len(of_epoch) // (2 * size))
    assert len(of_epoch) % (2 * size) in (1, 2, 3), "not even one each in the last step"
    ranks = [taken(BatchLoader(lambda epoch: store, config(rank=rank, size=size)), count) for rank in range(size)]
    for number, steps in enumerate(zip(*ranks, strict=True)):
        start = number * 2 * size
        end = min(start + 2 * size, len(of_epoch))
        assert len({len(step.micro_batches) for step in steps}) == 1, "they wait for each other's gradients"
        assert {step.position for step in steps} == {end}
        tokens = sum(of_epoch.target_tokens(each) for each in range(start, end))
        assert {step.target_tokens for step in steps} == {tokens}, "of all ranks"
        for rank, step in enumerate(steps):
            for turn, micro in enumerate(step.micro_batches):
                place = start + turn * size + rank
                assert micro.weight == float(place < end)
                if place < end:
                    assert micro.batch.indices.tolist() == of_epoch[place].tolist()
    assert [len(ranks[0][-1].micro_batches), sum(steps[-1].micro_batches[0].weight == 0 for steps in ranks)] == [
        1, size - len(of_epoch) % (2 * size),
    ]  # fmt: skip


@pytest.mark.parametrize("behind", [1, 3, 40])
def test_a_stream_goes_on_from_any_position(store: TokenStore, behind: int) -> None:
    count = 12  # more than an epoch
    whole = taken(BatchLoader(lambda epoch: store, config()), behind + count)
    last = whole[behind - 1]
    rest = taken(BatchLoader(lambda epoch: store, config()), count, epoch=last.epoch, position=last.position)
    for one, other in zip(rest, whole[behind:], strict=True):
        assert (one.epoch, one.position) == (other.epoch, other.position)
        pairs = zip(one.micro_batches, other.micro_batches, strict=True)
        assert all(torch.equal(a.batch.src, b.batch.src) and torch.equal(a.batch.indices, b.batch.indices)
                   for a, b in pairs)  # fmt: skip


def test_each_epoch_asks_once_for_its_examples(store: TokenStore) -> None:
    """Also where the largest batches were asked for before; and no more than a few steps ahead."""
    asked: list[int] = []
    stream = BatchLoader(lambda epoch: (asked.append(epoch), store)[1], config(accumulate=1000))
    stream.largest_batches(0)
    steps = stream.steps(0, 0)
    assert next(steps).epoch == 0
    time.sleep(0.3)  # for the thread to get as far as it will
    steps.close()
    assert asked == list(range(len(asked)))
    assert len(asked) <= 1 + BatchLoader.PREFETCH + 1


def test_the_heaviest_batches_are_found(store: TokenStore) -> None:
    """By positions, and by the pairs of them that attention computes: what does not fit shows before the first step."""
    of_epoch = plan(store, 0)
    batches = [collate(store, of_epoch[number], **(CUT | {"max_source_length": 50})) for number in range(len(of_epoch))]
    largest_batches = [
        micro.batch for micro in BatchLoader(lambda epoch: store, config(max_source_length=50)).largest_batches(0)
    ]
    shapes = [(len(batch.src), batch.src.size(1) + batch.tgt_in.size(1)) for batch in batches]
    found = [(len(batch.src), batch.src.size(1) + batch.tgt_in.size(1)) for batch in largest_batches]
    assert max(examples * width for examples, width in found) == max(examples * width for examples, width in shapes)
    assert max(examples * width**2 for examples, width in found) == max(e * width**2 for e, width in shapes)
    assert len(found) <= 2 < len(shapes)


def test_a_corpus_without_examples_is_refused() -> None:
    nothing: Any = SimpleNamespace(source_lengths=np.zeros(0, np.int32), target_lengths=np.zeros(0, np.int32))
    with pytest.raises(UserError, match="no example is left"):
        taken(BatchLoader(lambda epoch: nothing, config()), 1)


def test_an_error_in_the_thread_is_raised_with_the_place() -> None:
    class Store:
        """Its files are gone once the epoch has been planned."""

        source_lengths = target_lengths = np.full(30, 5, dtype=np.int32)

        @property
        def source_ids(self) -> Any:
            raise OSError("the file has vanished")

    vanished: Any = Store()
    with pytest.raises(OSError, match="vanished") as caught:
        taken(BatchLoader(lambda epoch: vanished, config(batch_tokens=50)), 1)
    assert caught.value.__notes__ == ["while preparing micro-batch 0 of 3 of epoch 0"]


def test_a_thread_that_is_gone_without_a_word_is_not_waited_for(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda self: None)
    with pytest.raises(RuntimeError, match="has ended"):
        taken(BatchLoader(lambda epoch: store, config()), 1)


def test_no_thread_outlives_its_stream(store: TokenStore) -> None:
    before = threading.active_count()
    steps = BatchLoader(lambda epoch: store, config()).steps(0, 0)
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before
