"""A batch that runs out of memory is retried in halves; tests/faults/test_little_memory.py has the real fault."""

import numpy as np
import pytest
import torch

from seq2seq.inference.oom import BatchSplitter


def splitter() -> BatchSplitter:
    return BatchSplitter(torch.device("cpu"), action="adding")


def allocate(*, excess: int) -> torch.Tensor:
    """Asks torch for more memory than any machine has if there are `excess` items too many."""
    return torch.empty(1 if excess == 0 else 1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("max_items", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 13])
def test_each_item_is_processed_once_and_in_order(max_items: int, count: int) -> None:
    def process(indices: list[int]) -> list[int]:
        allocate(excess=max(0, len(indices) - max_items))
        return [-i for i in indices]

    parts = splitter()
    for _ in range(2):
        found = list(parts.map(list(range(count)), process, hint=""))
        assert [i for indices, _ in found for i in indices] == list(range(count))
        assert all(result == [-i for i in indices] for indices, result in found)
        failures = parts.failures
    assert (failures > 0) == (count > max_items)
    assert list(parts.map(list(range(count)), process, hint="")) == found
    assert parts.failures == failures  # the second time the size was known


def test_arrays_are_split_like_lists() -> None:
    def process(indices: np.ndarray) -> int:  # type: ignore[type-arg]
        allocate(excess=max(0, len(indices) - 2))
        return int(indices.sum())

    assert sum(result for _, result in splitter().map(np.arange(10), process, hint="")) == 45


def test_other_errors_are_raised() -> None:
    def process(indices: list[int]) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(splitter().map([1, 2], process, hint=""))
