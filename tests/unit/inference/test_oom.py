"""What runs out of memory is tried anew in halves; the real fault is in tests/faults/test_little_memory.py."""

import numpy as np
import pytest
import torch

from seq2seq.inference.oom import BatchSplitter


def portions() -> BatchSplitter:
    return BatchSplitter(torch.device("cpu"), work="adding")


def no_room_for_more_than(size: int) -> torch.Tensor:
    """Asks torch for more memory than any machine has where there are more items."""
    return torch.empty(1 if size == 0 else 1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 13])
def test_each_item_is_worked_on_once_and_in_order(room: int, count: int) -> None:
    def work(numbers: list[int]) -> list[int]:
        no_room_for_more_than(max(0, len(numbers) - room))
        return [-number for number in numbers]

    parts = portions()
    for _ in range(2):
        found = list(parts.each(list(range(count)), work, fix=""))
        assert [number for numbers, _ in found for number in numbers] == list(range(count))
        assert all(result == [-number for number in numbers] for numbers, result in found)
        failures = parts.failures
    assert (failures > 0) == (count > room)
    assert list(parts.each(list(range(count)), work, fix="")) == found
    assert parts.failures == failures  # the second time the size was known


def test_arrays_are_cut_as_lists_are() -> None:
    def work(numbers: np.ndarray) -> int:  # type: ignore[type-arg]
        no_room_for_more_than(max(0, len(numbers) - 2))
        return int(numbers.sum())

    assert sum(result for _, result in portions().each(np.arange(10), work, fix="")) == 45


def test_other_errors_are_not_taken_for_it() -> None:
    def work(numbers: list[int]) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(portions().each([1, 2], work, fix=""))
