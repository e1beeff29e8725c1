"""Loads the batches of each optimizer step, prefetched in a thread: a pure function of (seed, epoch, position)."""

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from seq2seq.data.batching import Batch, collate, plan_epoch
from seq2seq.data.ragged import RaggedArray
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.system.distributed import World

# How long to wait for the prefetch thread to stop. It may be busy for minutes resampling the ids of an epoch; the
# partial files that it leaves at exit are removed by the next process.
_JOIN_TIMEOUT_SEC = 2.0


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass of one rank.

    Attributes:
        batch: The examples.
        weight: 1.0, or 0.0 for a filler batch: in an epoch's last step, a rank without examples of its own computes
            one so that all ranks take part in the collective operations.
    """

    batch: Batch
    weight: float


@dataclass(frozen=True)
class StepBatches:
    """The micro-batches of one rank in one optimizer step.

    Attributes:
        micro_batches: The same number on each rank.
        target_tokens: Target tokens of the step over all micro-batches and ranks, EOS included.
        padding_share: Fraction of positions that are padding, 0 to 1: the mean over this rank's micro-batches.
        epoch: The epoch of the step, from 0.
        position: Number of the epoch's micro-batches, over all ranks, consumed after this step.
        epoch_size: Number of micro-batches in the epoch, over all ranks.
    """

    micro_batches: list[MicroBatch]
    target_tokens: int
    padding_share: float
    epoch: int
    position: int
    epoch_size: int


class BatchLoader:
    """Yields the batches of optimizer steps, epoch after epoch, without end.

    Args:
        store_for_epoch: Returns the examples of an epoch: the same store each time, or one with resampled subwords.
        batch_tokens: Token budget of a micro-batch: examples × max(padded source, padded target).
        accumulate: Micro-batches per step on each rank.
        seed: The run's seed.
        world: The processes that share the run; None for a single process.
        overfit_batches: If given, every epoch consists of so many micro-batches, the first of epoch 0.
        pin_memory: Whether to copy batches into page-locked memory.
    """

    PREFETCH = 4  # steps prepared ahead: enough to hide a slow batch, at little memory

    def __init__(
        self,
        store_for_epoch: Callable[[int], TokenStore],
        *,
        batch_tokens: int,
        accumulate: int,
        seed: int,
        world: World | None = None,
        overfit_batches: int | None = None,
        pin_memory: bool = False,
    ):
        self._store_for_epoch = store_for_epoch
        self._batch_tokens, self._accumulate, self._seed = batch_tokens, accumulate, seed
        self._world = world or World()
        self._overfit_batches = overfit_batches
        self._pin_memory = pin_memory
        self._plan_lock = threading.Lock()
        self._planned: tuple[int, TokenStore, RaggedArray] | None = None

    def largest_batches(self, epoch: int) -> list[MicroBatch]:
        """Returns the epoch's largest micro-batches: by positions, and by pairs of positions, as in attention."""
        store, plan = self._plan(epoch)
        examples, starts = plan.lengths, plan.offsets[:-1]
        source = np.maximum.reduceat(store.source_lengths[plan.values], starts).astype(np.int64)
        target = np.maximum.reduceat(store.target_lengths[plan.values], starts).astype(np.int64)
        indices = {int(np.argmax(examples * (source + target))), int(np.argmax(examples * (source + target) ** 2))}
        return [MicroBatch(collate(store, plan[index]), 1.0) for index in sorted(indices)]

    def steps(self, epoch: int, position: int) -> Generator[StepBatches, None, None]:
        """Yields the steps from a position on, prefetched in a thread whose errors are raised here.

        Args:
            epoch: The epoch to start in, from 0.
            position: Number of the epoch's micro-batches already consumed, see ``StepBatches``.
        """
        ready: queue.Queue[StepBatches | BaseException] = queue.Queue(self.PREFETCH)
        stopped = threading.Event()

        def prepare() -> None:
            try:
                with closing(self._generate(epoch, position)) as steps:
                    for step in steps:
                        ready.put(step)
                        if stopped.is_set():
                            return
            except BaseException as error:
                ready.put(error)

        thread = threading.Thread(target=prepare, name="batches", daemon=True)
        thread.start()
        try:
            while thread.is_alive() or not ready.empty():
                try:
                    item = ready.get(timeout=1.0)
                except queue.Empty:
                    continue
                if isinstance(item, BaseException):
                    raise item
                yield item
            raise RuntimeError("the thread that prepares batches has ended")
        finally:
            stopped.set()
            while not ready.empty():  # the thread may be waiting for a place in the queue
                ready.get_nowait()
            thread.join(_JOIN_TIMEOUT_SEC)

    def _generate(self, epoch: int, position: int) -> Generator[StepBatches, None, None]:
        micro_batches_per_step = self._world.size * self._accumulate
        while True:
            store, plan = self._plan(epoch)
            for start in range(position, len(plan), micro_batches_per_step):
                try:
                    yield self._step(store, plan, epoch, start)
                except Exception as error:
                    error.add_note(f"while preparing micro-batch {start} of {len(plan)} of epoch {epoch}")
                    raise
            epoch, position = epoch + 1, 0

    def _plan(self, epoch: int) -> tuple[TokenStore, RaggedArray]:
        """Returns the store and plan of an epoch; caches those of the latest one."""
        with self._plan_lock:
            if self._planned is None or self._planned[0] != epoch:
                source_epoch = epoch if self._overfit_batches is None else 0
                store = self._store_for_epoch(source_epoch)
                plan = plan_epoch(
                    store.source_lengths,
                    store.target_lengths,
                    batch_tokens=self._batch_tokens,
                    seed=self._seed,
                    epoch=source_epoch,
                )
                if self._overfit_batches is not None:
                    plan = plan.gather(np.arange(min(self._overfit_batches, len(plan))))
                if len(plan) == 0:
                    raise UserError("data.train: no example is left to train on; the data report says why")
                self._planned = epoch, store, plan
            return self._planned[1:]

    def _step(self, store: TokenStore, plan: RaggedArray, epoch: int, start: int) -> StepBatches:
        world = self._world
        end = min(start + world.size * self._accumulate, len(plan))
        micro_batches = []
        for first in range(start, end, world.size):  # of rank 0
            index = first + world.rank
            batch = collate(store, plan[index if index < end else start])
            micro_batches.append(MicroBatch(batch.pin_memory() if self._pin_memory else batch, float(index < end)))
        return StepBatches(
            micro_batches,
            target_tokens=int(store.target_lengths[plan.values[plan.offsets[start] : plan.offsets[end]]].sum()),
            padding_share=sum(m.batch.padding_share for m in micro_batches) / len(micro_batches),
            epoch=epoch,
            position=end,
            epoch_size=len(plan),
        )
