from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.data.batching import Batch, argsort_by_length, collate, evaluation_batches, plan_epoch
from seq2seq.data.corpus import CorpusConfig, DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.prepare import prepare
from seq2seq.data.ragged import RaggedArray
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

TEXTS = [("a b c", "d e"), ("", "f"), ("b", "d e f d e f"), ("c c c c c c", "")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("store")
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=50)
    sources, targets = zip(*TEXTS, strict=True)
    tokenizers = train_tokenizers(lambda: iter(sources), lambda: iter(targets), config, seed=1)
    examples = [Example(s, t, (t,)) for s, t in TEXTS]
    write_store(folder, examples, tokenizers, DataConfig(), training=False)
    return TokenStore(folder)


def whole(store: TokenStore, indices: list[int]) -> Batch:
    return collate(store, np.array(indices))


def test_collate_row_by_row(store: TokenStore) -> None:
    batch = whole(store, [2, 0, 3, 1])
    assert batch.indices.tolist() == [2, 0, 3, 1]
    assert batch.src.shape == (4, 7)
    assert batch.tgt_in.shape == (4, 7)
    labels: list[int] = []
    rows: list[int] = []
    for row, index in enumerate(batch.indices.tolist()):
        source, target = store.source_ids[index].tolist(), store.target_ids[index].tolist()
        assert batch.src[row].tolist() == [*source, EOS_ID] + [PAD_ID] * (6 - len(source))
        assert batch.tgt_in[row].tolist() == [BOS_ID, *target] + [PAD_ID] * (6 - len(target))
        rows += [row * 7 + position for position in range(len(target) + 1)]
        labels += [*target, EOS_ID]
    assert batch.rows.tolist() == rows
    assert batch.labels.tolist() == labels
    assert batch.tokens == len(labels)
    used = sum(len(store.source_ids[i]) + 1 for i in range(4)) + len(labels)
    assert batch.padding_share == pytest.approx(1 - used / 56)
    assert {tensor.dtype for tensor in vars(batch).values()} == {torch.int64}
    assert torch.equal(batch.to("cpu", non_blocking=True).labels, batch.labels)


def lengths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = rng.geometric(0.05, count) + 1
    return source.astype(np.int32), np.clip(source + rng.integers(-4, 5, count), 1, None).astype(np.int32)


def contents(plan: RaggedArray) -> list[list[int]]:
    return [plan[i].tolist() for i in range(len(plan))]


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 70_000])
def test_plan_covers_everything_within_the_budget(count: int) -> None:
    source, target = lengths(count)
    plan = plan_epoch(source, target, batch_tokens=500, seed=3, epoch=1)
    batches = contents(plan)
    assert sorted(number for batch in batches for number in batch) == list(range(count))
    assert all(batches)
    for batch in batches:
        width = max(source[batch].max(), target[batch].max())
        assert len(batch) * width <= 500 or len(batch) == 1


def test_plan_is_a_function_of_seed_and_epoch() -> None:
    source, target = lengths(2000)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        np.random.default_rng().random()
        return contents(plan_epoch(source, target, batch_tokens=400, seed=seed, epoch=epoch))

    assert plan(1, 0) == plan(1, 0)
    different = [plan(1, 0), plan(1, 1), plan(2, 0), plan(0, 1)]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])
    together = [{frozenset(batch) for batch in batches} for batches in different]
    assert len(together[0] & together[1]) < len(together[0]) / 4  # different batches, not only a different order


def test_argsort_by_length() -> None:
    """Agrees with sorting by a tuple of three keys."""
    random = np.random.default_rng(4)
    source, target = random.integers(1, 9, size=(2, 100))

    def keys(index: int) -> tuple[int, int, int]:
        width, excess = max(source[index], target[index]), source[index] - target[index]
        return index // 40, width, excess if width % 2 == 0 else -excess

    assert argsort_by_length(source, target, pool=40).tolist() == sorted(range(100), key=keys)


def test_batches_come_in_random_order() -> None:
    source, target = lengths(20_000)
    plan = plan_epoch(source, target, batch_tokens=400, seed=1, epoch=0)
    means = [target[plan[i]].mean() for i in range(len(plan))]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.15


def test_plan_agrees_with_collate(store: TokenStore) -> None:
    plan = plan_epoch(store.source_lengths, store.target_lengths, batch_tokens=14, seed=1, epoch=0)
    for number in range(len(plan)):
        batch = whole(store, plan[number].tolist())
        assert batch.tokens == store.target_lengths[plan[number]].sum()
        assert max(batch.src.numel(), batch.tgt_in.numel()) <= 14


def test_budget_must_be_positive() -> None:
    with pytest.raises(UserError, match=r"trainer\.batch_tokens=0"):
        plan_epoch(*lengths(3), batch_tokens=0, seed=1, epoch=0)


@pytest.mark.parametrize("count", [0, 1, 999])
def test_evaluation_batches(count: int) -> None:
    source, target = lengths(count)
    batches = evaluation_batches(source, target, batch_tokens=300)
    assert sorted(number for batch in batches for number in batch.tolist()) == list(range(count))
    widths = [max(source[batch].max(), target[batch].max()) for batch in batches]
    assert widths == sorted(widths)
    assert all(len(batch) * width <= 300 or len(batch) == 1 for batch, width in zip(batches, widths, strict=True))


def test_padding_is_small_on_multi30k(real_data: Path, tmp_path: Path) -> None:
    names = {"train": "train", "valid": "val"}
    corpora = {split: CorpusConfig(f"{name}.en.gz", f"{name}.de.gz") for split, name in names.items()}
    data = DataConfig(root=str(real_data / "multi30k"), **corpora)
    tokenizer = TokenizerConfig(kind=TokenizerKind.word, vocab_size=8000)
    train = prepare(data, tokenizer, cache_root=tmp_path, seed=1, log=lambda line: None).train
    plan = plan_epoch(train.source_lengths, train.target_lengths, batch_tokens=4096, seed=1, epoch=0)
    batches = [whole(train, plan[i].tolist()) for i in range(len(plan))]
    positions = sum(batch.src.numel() + batch.tgt_in.numel() for batch in batches)
    padded = sum(batch.padding_share * (batch.src.numel() + batch.tgt_in.numel()) for batch in batches)
    assert padded / positions < 0.06
