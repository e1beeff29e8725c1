"""How far a run is, and whether it is complete: a few numbers, saved as JSON."""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from seq2seq.errors import UserError
from seq2seq.training.alarms import AlarmState
from seq2seq.training.config import TrainerConfig


@dataclass
class TrainState:
    """All that the loop knows about a run besides weights and optimizer; saved as JSON.

    Attributes:
        step: Optimizer steps done.
        epoch: The epoch of the next step, from 0.
        position: Micro-batches of that epoch that are behind.
        target_tokens: Target tokens seen, end-of-sentence counted.
        seconds: Time in the loop, evaluations and saves included, summed over resumes.
        step_seconds: Time in steps alone.
        epochs: Passes over the data, fractional.
        history: The step of each evaluation and the value of ``trainer.metric`` then.
        unscheduled: Steps saved because the run was stopped there. A run that was not stopped has no such
            checkpoints, so they count for nothing but going on.
        skipped: Updates that were skipped.
        alarms: What the alarms remember.
        windows: Figures since the last log, of each rank.
        scaler: State of the fp16 gradient scaler.
        machine: What else decides the last bits of the weights: device, ranks and the like.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    epochs: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)
    unscheduled: list[int] = field(default_factory=list)
    skipped: int = 0
    alarms: AlarmState = field(default_factory=AlarmState)
    windows: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> bool:
        """Whether the weights of this step were evaluated."""
        return any(step == self.step for step, _ in self.history)

    def best(self, mode: str) -> tuple[int, float] | None:
        """The step and value of the best evaluation, the earliest of equals; None before the first."""
        finite = [entry for entry in self.history if math.isfinite(entry[1])]
        if not finite:
            return None
        return (min if mode == "min" else max)(finite, key=lambda entry: entry[1])

    def best_is_now(self, mode: str) -> bool:
        """Whether the weights of this step are the best so far."""
        best = self.best(mode)
        return best is not None and best[0] == self.step

    def ranked(self, mode: str) -> list[int]:
        """Steps of the evaluations, best first."""
        sign = 1 if mode == "min" else -1
        finite = [entry for entry in self.history if math.isfinite(entry[1])]
        return [step for step, value in sorted(finite, key=lambda entry: sign * entry[1])]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainState":
        """The state that ``to_json`` and JSON made of one.

        Raises:
            UserError: If it is none.
        """
        try:
            history = [(int(step), math.nan if value is None else float(value)) for step, value in values["history"]]
            state = cls(**{**values, "history": history, "alarms": AlarmState(**values["alarms"])})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"state.json holds no state of a training run, or another version's: {error!r}") from error
        _check_kinds(state, cls())
        _check_kinds(state.alarms, AlarmState())
        return state

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can hold: a metric that is not finite becomes null."""
        values = asdict(self)
        values["history"] = [[step, value if math.isfinite(value) else None] for step, value in self.history]
        return values


def _check_kinds(state: object, blank: object) -> None:
    """Refuses fields of other kinds than those of a blank state, and numbers that count nothing."""
    for name, expected in vars(blank).items():
        value = getattr(state, name)
        if isinstance(expected, int):
            is_fit = type(value) is int and 0 <= value < 2**63
        elif isinstance(expected, float):
            is_fit = type(value) in (int, float) and 0 <= value <= sys.float_info.max
        else:
            is_fit = isinstance(value, type(expected))
        if not is_fit:
            raise UserError(f"the training state of the checkpoint (state.json) is damaged: {name} is {value!r}")


def finished(state: TrainState, config: TrainerConfig) -> str | None:
    """Why a run in this state is complete; None if it is not."""
    if config.max_steps is not None and state.step >= config.max_steps:
        return f"trainer.max_steps={config.max_steps} reached"
    if config.max_epochs is not None and state.epoch >= config.max_epochs:
        return f"trainer.max_epochs={config.max_epochs} reached"
    if config.max_minutes is not None and state.seconds >= 60 * config.max_minutes:
        return f"trainer.max_minutes={config.max_minutes} reached"
    if config.patience is not None:
        best = state.best(config.mode)
        gained = best[0] if best is not None else 0  # no evaluation gave a finite value, which is no gain either
        without_gain = sum(step > gained for step, _ in state.history)
        if without_gain >= config.patience:
            return f"no gain in {config.metric} for {without_gain} evaluations (trainer.patience={config.patience})"
    return None
