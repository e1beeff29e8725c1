"""The checkpoints of a run: written in the background, linked, pruned, averaged."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from seq2seq.runs.averaging import average as average_checkpoints
from seq2seq.runs.checkpoint import Checkpoint
from seq2seq.runs.checkpoint_store import CheckpointSaveError, CheckpointStore
from seq2seq.runs.manifest import CheckpointError
from seq2seq.runs.tracking import Tracker
from seq2seq.training.background import Background
from seq2seq.training.config import Averaging, SaveFailure, TrainerConfig
from seq2seq.training.state import TrainState

logger = logging.getLogger("seq2seq")


class CheckpointManager:
    """Saves checkpoints, and keeps those that the configuration asks for. Only rank 0 calls what writes.

    Args:
        store: The checkpoints of the run.
        config: The trainer's section.
        fingerprints: What the weights depend on, stored in each checkpoint.
        tracker: Flushed before a checkpoint is written, so that curves are never behind weights.
        background: Runs the writes.
        on_save: Called in the writing thread when a checkpoint is on the disk.
    """

    def __init__(
        self,
        store: CheckpointStore,
        config: TrainerConfig,
        *,
        fingerprints: Mapping[str, str],
        tracker: Tracker,
        background: Background,
        on_save: Callable[[], None],
    ) -> None:
        self._store = store
        self._config = config
        self._fingerprints = fingerprints
        self._tracker = tracker
        self._background = background
        self._on_save = on_save
        self._save_error: CheckpointSaveError | None = None

    def save(self, tensors: dict[str, dict[str, Tensor]], state: TrainState) -> None:
        """Writes a checkpoint in the background, links it and deletes those that are no longer needed.

        Args:
            tensors: Tensors by file and name, which nobody modifies any more.
            state: The training state; copied here.
        """
        self._background.submit(partial(self._write, tensors, state.to_json()))

    def _write(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Runs in a thread while training continues: nothing here may access what training modifies."""
        store, state = self._store, TrainState.from_json(values)
        self._tracker.flush()
        try:
            path = store.save(state.step, tensors, values, fingerprints=self._fingerprints)
            store.link("last", path)
            if state.is_best(self._config.mode):
                store.link("best", path)
            store.prune(keep=self._steps_to_keep(store.steps(), state))
            self._on_save()
        except CheckpointSaveError as error:
            if self._config.save_failure is SaveFailure.stop:
                raise
            self._save_error = error
            logger.warning("%s; training continues without it (trainer.save_failure=warn)", error)
            return
        self._save_error = None

    def require_saved(self) -> None:
        """Raises the CheckpointSaveError of the last save, if it failed and training continued."""
        if self._save_error is not None:
            raise self._save_error

    def _steps_to_keep(self, steps: list[int], state: TrainState) -> set[int]:
        config = self._config
        num_last = config.average_checkpoints if config.average is Averaging.last else config.keep_last
        num_best = config.average_checkpoints if config.average is Averaging.best else config.keep_best
        regular = state.without_interruptions(steps)
        ranked = [step for step in state.ranked(config.mode) if step in set(regular)]
        return {state.step, *regular[-max(num_last, config.keep_last) :], *ranked[: max(num_best, config.keep_best)]}

    def save_failed_batch(self, step: int, weights: dict[str, Tensor], batch: dict[str, Tensor]) -> str:
        """Writes ``checkpoints/failed`` with the batch at which training failed.

        Returns:
            The end of a sentence about the batch: that it is in a folder, or could not be saved.
        """
        try:
            self._background.wait()  # a save in progress would delete this half-written folder as a leftover
            path = self._store.save(step, {"model": weights, "batch": batch}, {}, name="failed")
        except CheckpointSaveError as error:
            logger.warning("%s", error)
            return "could not be saved"
        return f"is in {path}"

    def resume(self, checkpoint: Checkpoint, state: TrainState) -> None:
        """Restores links and checkpoints to what they were at this checkpoint; later checkpoints are deleted."""
        steps = [step for step in self._store.steps() if step <= checkpoint.step]
        self._store.link("last", checkpoint.path)  # stale if the process was killed between a save and its links
        for step in state.ranked(self._config.mode):
            if step in steps and self._is_valid(step):
                self._store.link("best", step)
                break
        self._store.prune(keep=self._steps_to_keep(steps, state))

    def _is_valid(self, step: int) -> bool:
        """Whether a checkpoint is undamaged; a damaged one would fail in the final scoring."""
        try:
            self._store.load(str(step), files=["model"])
        except CheckpointError as error:
            logger.warning("%s; using the next best checkpoint instead", error)
            return False
        return True

    def steps_to_average(self, state: TrainState) -> list[int]:
        """Returns the steps of the checkpoints to average; none if there is nothing to average, or none configured."""
        config, regular = self._config, state.without_interruptions(self._store.steps())
        if config.average is Averaging.none:
            return []
        ranked = regular if config.average is Averaging.last else state.ranked(config.mode)[::-1]
        return [step for step in ranked if step in regular][-config.average_checkpoints :]

    def average(self, steps: list[int]) -> dict[str, Tensor]:
        """Returns the mean weights of the checkpoints of these steps, by name."""
        return average_checkpoints([self._store.resolve(str(step)) for step in steps])

    def save_average(self, weights: dict[str, Tensor], contents: dict[str, Any], *, step: int, is_best: bool) -> None:
        """Writes ``checkpoints/average``, and links it as ``best`` if it is the best; `contents` is its state."""
        path = self._store.save(step, {"model": weights}, contents, fingerprints=self._fingerprints, name="average")
        if is_best:
            self._store.link("best", path)
