"""The progress of a run and whether it is complete: a few numbers, saved as JSON."""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from seq2seq.errors import UserError
from seq2seq.training.alarms import Alarms
from seq2seq.training.config import TrainerConfig

# Attributes whose keys in state.json have older names.
_JSON_KEYS = {"interruption_steps": "unscheduled", "running_metrics": "windows"}
_ATTRIBUTES = {key: name for name, key in _JSON_KEYS.items()}


@dataclass
class TrainState:
    """The state of a run apart from weights and optimizer; saved as JSON.

    Attributes:
        step: Optimizer steps done.
        epoch: The epoch of the next step, from 0.
        position: Micro-batches of that epoch already consumed.
        target_tokens: Target tokens seen, including end-of-sentence.
        seconds: Time in the loop, including evaluations and saves, summed over resumes.
        step_seconds: Time in steps alone.
        epochs: Passes over the data, fractional.
        history: (step, value of ``trainer.metric``) of each evaluation.
        eval_examples: ``trainer.eval_examples`` of these evaluations; 0 in states that did not record it.
        interruption_steps: Steps of interruption checkpoints, saved only because the run was stopped there. An
            uninterrupted run does not have them, so they are used to resume, and for nothing else.
        skipped: Number of skipped updates.
        alarms: State of the alarms.
        running_metrics: ``RunningMetrics`` of each rank since the last log.
        scaler: State of the fp16 gradient scaler.
        machine: What else affects the weights bit for bit: device, number of ranks and so on.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    epochs: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)
    eval_examples: int = 0
    interruption_steps: list[int] = field(default_factory=list)
    skipped: int = 0
    alarms: Alarms = field(default_factory=Alarms)
    running_metrics: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> bool:
        """Whether the weights of this step have been evaluated."""
        return any(step == self.step for step, _ in self.history)

    def best(self, mode: str) -> tuple[int, float] | None:
        """The step and value of the best evaluation, the earliest on a tie; None before the first finite value."""
        ranked = self.ranked(mode)
        return (ranked[0], dict(self.history)[ranked[0]]) if ranked else None

    def is_best(self, mode: str) -> bool:
        """Whether the weights of this step are the best so far."""
        return self.ranked(mode)[:1] == [self.step]

    def without_interruptions(self, steps: list[int]) -> list[int]:
        """Of the steps of checkpoints, those that an uninterrupted run would have too."""
        return [step for step in steps if step not in self.interruption_steps]

    def ranked(self, mode: str) -> list[int]:
        """Steps of the evaluations with a finite value, best first."""
        sign = 1 if mode == "min" else -1
        finite = [entry for entry in self.history if math.isfinite(entry[1])]
        return [step for step, value in sorted(finite, key=lambda entry: sign * entry[1])]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainState":
        """Builds a state from what ``to_json`` returned.

        Raises:
            UserError: If the values are no training state, or a damaged one.
        """
        try:
            history = [(int(step), math.nan if value is None else float(value)) for step, value in values["history"]]
            named = {_ATTRIBUTES.get(key, key): value for key, value in values.items()}
            state = cls(**{**named, "history": history, "alarms": Alarms(**values["alarms"])})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"state.json holds no training state, or one of another version: {error!r}") from error
        _check_types(state, cls())
        _check_types(state.alarms, Alarms())
        return state

    def to_json(self) -> dict[str, Any]:
        """Returns values that JSON can hold; a metric that is not finite becomes null."""
        values = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        values["history"] = [[step, value if math.isfinite(value) else None] for step, value in self.history]
        return values


def _check_types(state: object, defaults: object) -> None:
    """Raises a UserError if a field has another type than its default, or a number is negative or out of range."""
    for name, default in vars(defaults).items():
        value = getattr(state, name)
        if isinstance(default, int):
            valid = type(value) is int and 0 <= value < 2**63
        elif isinstance(default, float):
            valid = type(value) in (int, float) and 0 <= value <= sys.float_info.max
        else:
            valid = isinstance(value, type(default))
        if not valid:
            key = _JSON_KEYS.get(name, name)
            raise UserError(f"the training state of the checkpoint (state.json) is damaged: {key} is {value!r}")


def stop_reason(state: TrainState, config: TrainerConfig) -> str | None:
    """Returns why a run in this state is complete; None if it is not."""
    spent = {"max_steps": state.step, "max_epochs": max(state.epoch, state.epochs), "max_minutes": state.seconds / 60}
    for key, value in spent.items():
        limit = getattr(config, key)
        if limit is not None and value >= limit:
            return f"trainer.{key}={limit:g} reached"
    if config.patience is not None:
        best_step = next(iter(state.ranked(config.mode)), 0)  # 0: a value that is not finite is no improvement either
        num_stale = sum(step > best_step for step, _ in state.history)
        if num_stale >= config.patience:
            return f"{config.metric} has not improved for {num_stale} evaluations (trainer.patience={config.patience})"
    return None
