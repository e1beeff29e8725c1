"""Splits batches into smaller parts when memory runs out."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from seq2seq.data.ragged import IntArray
from seq2seq.errors import TrainingError
from seq2seq.system.device import free_memory, is_out_of_memory

logger = logging.getLogger("seq2seq")

Indices = TypeVar("Indices", list[int], IntArray)
Result = TypeVar("Result")


class BatchSplitter:
    """Processes batches in parts: in one part until memory runs out, then permanently in twice as many each time.

    Args:
        device: Where the batches are processed.
        action: What is done to them, as messages say it: "decoding".

    Attributes:
        num_parts: Into how many parts a batch is split.
        failures: How often memory ran out.
    """

    def __init__(self, device: torch.device, *, action: str) -> None:
        self.num_parts = 1
        self.failures = 0
        self._device = device
        self._action = action

    def map(
        self, batch: Indices, process: Callable[[Indices], Result], *, hint: str
    ) -> Iterator[tuple[Indices, Result]]:
        """Yields each part of a batch with its result, in order.

        Args:
            batch: Indices of the examples.
            process: Computes the result of a part from its indices; called again with fewer when memory runs out.
            hint: What a user can change if a single example is too large.

        Raises:
            TrainingError: If there is not enough memory for a single example.
        """
        done = 0
        while done < len(batch):
            part = batch[done : done + -(-len(batch) // self.num_parts)]
            try:
                result = process(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise TrainingError(f"out of memory {self._action} a single example; {hint}") from error
            else:
                yield part, result
                done += len(part)
                continue
            # Only after the except clause is nothing left that refers to the tensors of the failed attempt.
            free_memory(self._device)
            if not self.failures:
                logger.warning(
                    "out of memory %s %d examples at once; continuing with %d, or fewer if that is still too many",
                    self._action, len(part), -(-len(part) // 2),
                )  # fmt: skip
            self.failures += 1
            self.num_parts *= 2
