"""The batches of each optimizer step, in a thread ahead of it: a pure function of (seed, epoch, position)."""

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from seq2seq.data.batching import Batch, EpochPlan, collate, plan_epoch
from seq2seq.data.ragged import Index
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError

# Seconds that a thread gets to see that nobody wants its batches any more. It may be drawing the ids of an epoch, for
# minutes; what it builds is thrown away with the process, and cleared away by the next one.
_PATIENCE = 2.0


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward of one rank.

    Attributes:
        batch: The examples.
        weight: 1.0; 0.0 on a rank that has nothing left in an epoch's last step and only keeps the others company.
    """

    batch: Batch
    weight: float


@dataclass(frozen=True)
class StepBatches:
    """What one rank computes in one optimizer step.

    Attributes:
        micro_batches: As many on each rank.
        target_tokens: Target tokens of the step over all micro-batches and ranks, end-of-sentence counted.
        padding_share: Padded positions over all positions of this rank's micro-batches.
        epoch: The epoch of the step, from 0.
        position: Micro-batches of the epoch that are behind after this step.
        epoch_size: Micro-batches of the epoch.
    """

    micro_batches: list[MicroBatch]
    target_tokens: int
    padding_share: float
    epoch: int
    position: int
    epoch_size: int


@dataclass(frozen=True)
class LoaderConfig:
    """What decides which examples meet in a step, besides the data.

    Attributes:
        batch_tokens: Budget of a micro-batch: examples × max(padded source, padded target).
        accumulate: Micro-batches of a step on each rank.
        max_source_length: Source tokens kept, end-of-sentence counted.
        max_target_length: Target tokens kept, end-of-sentence counted.
        seed: The run's seed.
        rank: This process.
        size: Number of processes.
        pinned: Whether batches are put into page-locked memory.
    """

    batch_tokens: int
    accumulate: int
    max_source_length: int
    max_target_length: int
    seed: int
    rank: int = 0
    size: int = 1
    pinned: bool = False


class BatchLoader:
    """Endless optimizer steps over a training store.

    Args:
        store_of_epoch: The examples of an epoch: the same store each time, or one with resampled subwords.
        config: See ``LoaderConfig``.
    """

    PREFETCH = 4  # steps prepared before they are asked for: enough to hide a slow batch, little memory

    def __init__(self, store_of_epoch: Callable[[int], TokenStore], config: LoaderConfig):
        self._store_of_epoch = store_of_epoch
        self._config = config
        self._plan_lock = threading.Lock()
        self._planned: tuple[int, TokenStore, EpochPlan] | None = None

    def largest_batches(self, epoch: int) -> list[MicroBatch]:
        """The micro-batches of an epoch that need most memory: by positions, and by pairs of them, as in attention."""
        store, plan = self._plan(epoch)
        examples = np.diff(plan.ends, prepend=0)
        starts = plan.ends - examples
        source = np.maximum.reduceat(store.source_lengths[plan.order], starts).astype(np.int64)
        target = np.maximum.reduceat(store.target_lengths[plan.order], starts).astype(np.int64)
        numbers = {int(np.argmax(examples * (source + target))), int(np.argmax(examples * (source + target) ** 2))}
        return [MicroBatch(self._collate(store, plan[number]), 1.0) for number in sorted(numbers)]

    def steps(self, epoch: int, position: int) -> Generator[StepBatches, None, None]:
        """Yields steps from a position on, prepared in a thread; an error there is raised here."""
        ready: queue.Queue[StepBatches | BaseException] = queue.Queue(self.PREFETCH)
        stopped = threading.Event()

        def put(item: StepBatches | BaseException) -> bool:
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def prepare() -> None:
            try:
                with closing(self._build(epoch, position)) as steps:
                    for step in steps:
                        if not put(step):
                            return
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=prepare, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = _next_of(ready, thread)
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join(_PATIENCE)

    def _build(self, epoch: int, position: int) -> Generator[StepBatches, None, None]:
        config = self._config
        group = config.size * config.accumulate
        while True:
            store, plan = self._plan(epoch)
            for start in range(position, len(plan), group):
                try:
                    yield self._step(store, plan, epoch, start)
                except Exception as error:
                    error.add_note(f"while preparing micro-batch {start} of {len(plan)} of epoch {epoch}")
                    raise
            epoch, position = epoch + 1, 0

    def _plan(self, epoch: int) -> tuple[TokenStore, EpochPlan]:
        """The examples and micro-batches of an epoch; the latest are kept, for whoever asks again."""
        config = self._config
        with self._plan_lock:
            if self._planned is None or self._planned[0] != epoch:
                store = self._store_of_epoch(epoch)
                plan = plan_epoch(
                    store.source_lengths,
                    store.target_lengths,
                    batch_tokens=config.batch_tokens,
                    seed=config.seed,
                    epoch=epoch,
                )
                if len(plan) == 0:
                    raise UserError("data.train: no example is left to train on; the data report says why")
                self._planned = epoch, store, plan
            return self._planned[1:]

    def _collate(self, store: TokenStore, numbers: Index) -> Batch:
        config = self._config
        return collate(
            store, numbers, max_source_length=config.max_source_length, max_target_length=config.max_target_length
        )

    def _step(self, store: TokenStore, plan: EpochPlan, epoch: int, start: int) -> StepBatches:
        config = self._config
        end = min(start + config.size * config.accumulate, len(plan))
        micro_batches = []
        for offset in range(start, start + config.size * config.accumulate, config.size):
            number = offset + config.rank
            if offset >= end:
                break  # no rank has anything for this micro-batch
            batch = self._collate(store, plan[number if number < end else start])
            micro_batches.append(MicroBatch(batch.pin_memory() if config.pinned else batch, float(number < end)))
        return StepBatches(
            micro_batches,
            target_tokens=sum(plan.target_tokens(number) for number in range(start, end)),
            padding_share=sum(m.batch.padding_share for m in micro_batches) / len(micro_batches),
            epoch=epoch,
            position=end,
            epoch_size=len(plan),
        )


def _next_of(ready: queue.Queue[StepBatches | BaseException], thread: threading.Thread) -> StepBatches | BaseException:
    """What the thread prepared next; an error if it is gone without a word, where waiting would be for ever."""
    while True:
        try:
            return ready.get(timeout=1.0)
        except queue.Empty:
            if not thread.is_alive() and ready.empty():
                return RuntimeError("the thread that prepares batches has ended")
