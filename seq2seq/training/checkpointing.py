"""Which checkpoints a run has: written in the background, linked, kept, averaged."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from seq2seq.runs.averaging import average as average_checkpoints
from seq2seq.runs.checkpoint import Checkpoint, CheckpointSaveError, CheckpointStore
from seq2seq.runs.manifest import CheckpointError
from seq2seq.runs.tracking import NullTracker
from seq2seq.training.background import Background
from seq2seq.training.config import Averaging, SaveFailure, TrainerConfig
from seq2seq.training.state import TrainState

LOGGER = logging.getLogger("seq2seq")


@dataclass(frozen=True)
class Average:
    """The mean of some checkpoints.

    Attributes:
        steps: Of the checkpoints.
        weights: By name.
    """

    steps: list[int]
    weights: dict[str, Tensor]


class Checkpointing:
    """Keeps the checkpoints that the configuration asks for. Only one rank writes.

    Args:
        store: Where they are.
        config: The trainer's section.
        fingerprints: What the checkpoints belong to.
        tracker: Is flushed before a checkpoint is written, so that curves are never behind weights.
        background: Writes.
    """

    def __init__(
        self,
        store: CheckpointStore,
        config: TrainerConfig,
        *,
        fingerprints: Mapping[str, str],
        tracker: NullTracker,
        background: Background,
    ) -> None:
        self._store = store
        self._config = config
        self._fingerprints = fingerprints
        self._tracker = tracker
        self._background = background
        self._unsaved: CheckpointSaveError | None = None

    def save(self, tensors: dict[str, dict[str, Tensor]], state: TrainState) -> None:
        """Writes a checkpoint in the background, links it and deletes those that are not to be kept.

        Args:
            tensors: Copies, which nobody changes.
            state: Is copied.
        """
        self._background.submit(partial(self._write, tensors, state.to_json()))

    def _write(self, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
        """Runs beside training: nothing here may touch what training changes."""
        store, state = self._store, TrainState.from_json(values)
        self._tracker.flush()
        try:
            path = store.save(state.step, tensors, values, belongs_to=self._fingerprints)
            store.link("last", path)
            if state.best_is_now(self._config.mode):
                store.link("best", path)
            store.prune(keep=self._kept(store.steps(), state))
        except CheckpointSaveError as error:
            if self._config.save_failure is SaveFailure.stop:
                raise
            self._unsaved = error
            LOGGER.warning("%s; training continues without it (trainer.save_failure=warn)", error)
            return
        self._unsaved = None

    def require_saved(self) -> None:
        """Raises the CheckpointSaveError of the last save, if it failed and training went on."""
        if self._unsaved is not None:
            raise self._unsaved

    def _kept(self, steps: list[int], state: TrainState) -> set[int]:
        config = self._config
        last = config.average_checkpoints if config.average is Averaging.last else config.keep_last
        best = config.average_checkpoints if config.average is Averaging.best else config.keep_best
        regular = [step for step in steps if step not in state.unscheduled]
        ranked = [step for step in state.ranked(config.mode) if step in set(regular)]
        return {state.step, *regular[-max(last, config.keep_last) :], *ranked[: max(best, config.keep_best)]}

    def save_failed(self, step: int, weights: dict[str, Tensor], batch: dict[str, Tensor]) -> str:
        """Writes ``checkpoints/failed`` with a batch that training cannot get past.

        Returns:
            What became of it, to be said of the batch.
        """
        try:
            self._background.wait()  # a checkpoint under way would take what is half written for remains
            path = self._store.save(step, {"model": weights, "batch": batch}, {}, name="failed")
        except CheckpointSaveError as error:
            LOGGER.warning("%s", error)
            return "could not be saved"
        return f"is in {path}"

    def resume(self, checkpoint: Checkpoint, state: TrainState) -> None:
        """Links and keeps what a run has that goes on from this checkpoint; later ones are deleted."""
        steps = [step for step in self._store.steps() if step <= checkpoint.step]
        self._store.link("last", checkpoint.path)  # a kill between a save and its links leaves these behind
        self._link_best([step for step in state.ranked(self._config.mode) if step in steps])
        self._store.prune(keep=self._kept(steps, state))

    def _link_best(self, ranked: list[int]) -> None:
        """Makes the best sound checkpoint of these ``best``; with a damaged one, scoring would fail at the very end."""
        for step in ranked:
            try:
                self._store.load(str(step), files=["model"])
            except CheckpointError as error:
                LOGGER.warning("%s; the next best one takes its place", error)
            else:
                self._store.link("best", step)
                return

    def average(self, state: TrainState) -> Average | None:
        """The mean that the configuration asks for; None if it asks for none, or there is nothing to average."""
        config = self._config
        if config.average is Averaging.none:
            return None
        there = [step for step in self._store.steps() if step not in state.unscheduled]
        ranked = there if config.average is Averaging.last else state.ranked(config.mode)[::-1]
        chosen = [step for step in ranked if step in set(there)][-config.average_checkpoints :]
        if not chosen:
            return None  # best of none: no evaluation gave a finite value
        return Average(chosen, average_checkpoints([self._store.resolve(str(step)) for step in chosen]))

    def save_average(self, average: Average, value: float, *, step: int, is_best: bool) -> None:
        """Writes ``checkpoints/average``, and links it as ``best`` if it is."""
        path = self._store.save(
            step, {"model": average.weights}, {"averaged": average.steps, "value": value},
            belongs_to=self._fingerprints, name="average",
        )  # fmt: skip
        if is_best:
            self._store.link("best", path)
