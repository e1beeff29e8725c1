import json
import math
import sys
from dataclasses import replace
from typing import Any

import pytest

from seq2seq.errors import UserError
from seq2seq.training.alarms import Alarms
from seq2seq.training.config import TrainerConfig
from seq2seq.training.state import TrainState, stop_reason

NAN = math.nan
STATE = TrainState(
    step=7, epoch=2, position=3, target_tokens=900, seconds=12.5, step_seconds=10.25, epochs=2.75,
    history=[(3, 1.5), (6, NAN)], interruption_steps=[7], skipped=1,
    alarms=Alarms(raised=["padding"], losses=[2.0]), running_metrics=[{"steps": 1}],
    scaler={"scale": 4.0}, machine={"threads": 1},
)  # fmt: skip


def limits(**changes: Any) -> TrainerConfig:
    """No limit but those given."""
    config = TrainerConfig(max_steps=1)
    for key, value in ({"max_steps": None} | changes).items():
        setattr(config, key, value)
    return config


@pytest.mark.parametrize(
    ("limit", "before", "at"),
    [
        ({"max_steps": 5}, {"step": 4}, {"step": 5}),
        ({"max_epochs": 2}, {"epoch": 1, "position": 999, "epochs": 1.999}, {"epoch": 2}),
        ({"max_minutes": 0.5}, {"seconds": 29.999}, {"seconds": 30.0}),
        ({"patience": 2}, {"history": [(1, 3.0), (2, 3.5)]}, {"history": [(1, 3.0), (2, 3.5), (3, 3.1)]}),
    ],
)
def test_a_run_is_complete_once_a_limit_is_reached(
    limit: dict[str, Any], before: dict[str, Any], at: dict[str, Any]
) -> None:
    assert stop_reason(TrainState(**before), limits(**limit)) is None
    reason = stop_reason(TrainState(**at), limits(**limit))
    assert reason is not None
    ((key, value),) = limit.items()
    assert f"trainer.{key}={value}" in reason
    assert stop_reason(TrainState(**at), limits(max_steps=100)) is None, "no other limit ends it there"


@pytest.mark.parametrize(
    ("mode", "values", "ends"),
    [
        ("min", [3.0, 2.0, 2.5], False),
        ("min", [3.0, 2.0, 2.0, 2.0], True),  # as good is no gain
        ("min", [3.0, 4.0, 2.0, 4.0], False),  # a gain restarts the count
        ("max", [3.0, 2.0, 4.0, 3.0], False),
        ("max", [3.0, 2.0, 2.9], True),
        ("min", [NAN, NAN], True),
        ("min", [NAN, 3.0, NAN], False),
        ("max", [3.0, math.inf, NAN], True),
    ],
)
def test_patience_counts_evaluations_since_the_best(mode: str, values: list[float], ends: bool) -> None:
    config = limits(patience=2, metric="valid/loss" if mode == "min" else "valid/bleu")
    state = TrainState(history=[(10 * (place + 1), value) for place, value in enumerate(values)])
    assert (stop_reason(state, config) is not None) == ends


@pytest.mark.parametrize(
    ("history", "least", "most"),
    [
        ([], [], []),
        ([(5, NAN), (10, math.inf)], [], []),
        ([(5, 2.0), (10, 1.0), (15, 3.0)], [10, 5, 15], [15, 5, 10]),
        ([(5, 2.0), (10, 1.0), (15, 1.0), (20, 2.0)], [10, 15, 5, 20], [5, 20, 10, 15]),  # the earliest of equals
        ([(5, NAN), (10, 1.0), (15, -math.inf), (20, 0.5)], [20, 10], [10, 20]),
    ],
)
def test_evaluations_are_ranked_by_the_metric(
    history: list[tuple[int, float]], least: list[int], most: list[int]
) -> None:
    state = TrainState(history=history)
    for mode, expected in (("min", least), ("max", most)):
        assert state.ranked(mode) == expected
        best = state.best(mode)
        assert best == (None if not expected else (expected[0], dict(history)[expected[0]]))


def test_a_step_is_evaluated_once_its_weights_were() -> None:
    assert not replace(STATE, step=7).evaluated
    assert replace(STATE, step=6).evaluated


def test_a_state_survives_json() -> None:
    """Also for readers that know no NaN."""
    text = json.dumps(STATE.to_json(), allow_nan=False)
    again = TrainState.from_json(json.loads(text))
    assert replace(again, history=[]) == replace(STATE, history=[])
    assert again.history[0] == (3, 1.5)
    assert again.history[1][0] == 6
    assert math.isnan(again.history[1][1])
    for state in (TrainState(), TrainState(seconds=sys.float_info.max, step=2**63 - 1)):
        assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state, "at either end"


@pytest.mark.parametrize(
    ("key", "value"),
    [("step", -1), ("step", 1.0), ("step", True), ("position", "3"), ("seconds", NAN), ("seconds", -0.1),
     ("epochs", math.inf), ("unscheduled", 7), ("windows", {}), ("machine", None)],
)  # fmt: skip
def test_a_damaged_field_is_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"state\.json\) is damaged: {key} is"):
        TrainState.from_json(STATE.to_json() | {key: value})


@pytest.mark.parametrize("change", [{"history": [[1]]}, {"history": None}, {"alarms": []}, {"of another version": 1}])
def test_the_state_of_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="another version"):
        TrainState.from_json(STATE.to_json() | change)
