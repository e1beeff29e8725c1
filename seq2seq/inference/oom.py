"""Batches that turn out too large for the memory: worked on in ever smaller portions."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from seq2seq.data.ragged import Index
from seq2seq.errors import TrainingError
from seq2seq.system.device import free_memory, is_out_of_memory

LOGGER = logging.getLogger("seq2seq")

Numbers = TypeVar("Numbers", list[int], Index)
Result = TypeVar("Result")


class BatchSplitter:
    """How many portions a batch is cut into: one, until memory runs out; then twice as many, for good.

    Args:
        device: Where the work is done.
        work: What it is, for messages.

    Attributes:
        count: Portions that a batch is cut into.
        failures: How often memory ran out.
    """

    def __init__(self, device: torch.device, *, work: str) -> None:
        self.count = 1
        self.failures = 0
        self._device = device
        self._work = work

    def each(self, batch: Numbers, work: Callable[[Numbers], Result], *, fix: str) -> Iterator[tuple[Numbers, Result]]:
        """Yields each portion of a batch with what the work made of it, in order.

        Args:
            batch: Numbers of the examples.
            work: From a portion's numbers to a result; tried anew with fewer of them where memory runs out.
            fix: What a user can change if one example alone is too large.

        Raises:
            TrainingError: If memory does not suffice for one example.
        """
        done = 0
        while done < len(batch):
            portion = batch[done : done + -(-len(batch) // self.count)]
            try:
                result = work(portion)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(portion) == 1:
                    raise TrainingError(f"out of memory {self._work} one example alone; {fix}") from error
            else:
                yield portion, result
                done += len(portion)
                continue
            # Only here does nothing refer to the tensors of the failed attempt any more.
            free_memory(self._device)
            self._shrink(len(portion))

    def _shrink(self, tried: int) -> None:
        if not self.failures:
            LOGGER.warning(
                "out of memory %s %d examples at once; continuing with %d, or fewer if that is still too many",
                self._work,
                tried,
                -(-tried // 2),
            )
        self.failures += 1
        self.count *= 2
