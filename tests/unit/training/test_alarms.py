"""Each fault raises its alarm once, the third time in a row; a healthy run, and a resumed one, raise no other."""

import json
import random
from dataclasses import asdict

import pytest

from seq2seq.training.alarms import Alarms

REFERENCES = [f"this is sentence number {number}" for number in range(20)]
SOUND = [reference.replace("this", "that") for reference in REFERENCES]
STUCK = ["that is that"] * 20
BROKEN = {
    "same": ["this is the very same sentence"] * 20,
    "empty": [*SOUND[:9], *[" "] * 11],
    "short": [reference[-9:] for reference in REFERENCES],
    "long": [reference * 3 for reference in REFERENCES],
    "unknown": [reference.replace("is", "⁇") for reference in REFERENCES],
}


def logged_values(step: int, *, loss: float = 2.0, warmup: int = 100, padding: float = 0.1) -> dict[str, float]:
    lr = min(step / warmup, (warmup / step) ** 0.5)
    return {"train/loss": loss, "train/lr": lr, "perf/padding_share": padding, "perf/target_tokens_per_sec": 1e4}


def warmed_up() -> Alarms:
    alarms = Alarms()
    for step in range(10, 210, 10):
        alarms.check_metrics(step, logged_values(step))
    return alarms


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_outputs_raise_their_alarm_once_at_the_third_evaluation(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    alarms = warmed_up()
    for number, step in enumerate(range(300, 900, 100), start=1):
        alarms.check_outputs(step, BROKEN[kind], REFERENCES)
        assert alarms.raised == ([kind] if number >= 3 else [])
    (line,) = caplog.messages
    assert line.startswith("step 500: since step 300 ")
    assert "\n" not in line


def test_sound_outputs_raise_none() -> None:
    alarms = warmed_up()
    for step in range(300, 900, 100):
        alarms.check_outputs(step, SOUND, REFERENCES)
    assert alarms.raised == []
    assert alarms.seen == {}


def test_one_sound_evaluation_restarts_the_count() -> None:
    alarms = warmed_up()
    for step in range(300, 1500, 300):
        alarms.check_outputs(step, STUCK, REFERENCES)
        alarms.check_outputs(step + 100, STUCK, REFERENCES)
        alarms.check_outputs(step + 200, SOUND, REFERENCES)
    assert alarms.raised == []


def test_outputs_do_not_count_before_twice_the_warm_up() -> None:
    alarms = Alarms()
    alarms.check_outputs(5, STUCK, REFERENCES)  # nothing logged yet
    for step in range(10, 210, 10):
        alarms.check_metrics(step, logged_values(step))
        alarms.check_outputs(step, STUCK, REFERENCES)
    assert alarms.raised == []
    assert alarms.seen == {}
    for step in range(210, 240, 10):
        alarms.check_metrics(step, logged_values(step))
        alarms.check_outputs(step, STUCK, REFERENCES)
    assert "same" in alarms.raised


def test_a_few_outputs_and_alike_references_say_nothing() -> None:
    alarms = warmed_up()
    for step in range(300, 900, 100):
        alarms.check_outputs(step, ["yes"] * 4, ["yes", "no", "perhaps", "never"])
        alarms.check_outputs(step, ["yes"] * 9, ["yes"] * 9)
        alarms.check_outputs(step, [""] * 9, [""] * 9)
    assert alarms.raised == []


def test_a_loss_that_jumps_and_stays_is_a_spike_and_noise_is_none(caplog: pytest.LogCaptureFixture) -> None:
    noise = random.Random(1)
    alarms = Alarms()
    for step in range(1, 5000):
        alarms.check_metrics(step, logged_values(step, loss=2 + 7 / step + noise.gauss(0, 0.3)))
    assert alarms.raised == []
    alarms.check_metrics(5000, logged_values(5000, loss=9.0))  # one odd batch
    alarms.check_metrics(5001, logged_values(5001))
    assert alarms.raised == []
    for step in range(5002, 5005):
        alarms.check_metrics(step, logged_values(step, loss=6.0))
    assert alarms.raised == ["spike"]
    (line,) = caplog.messages
    assert line.startswith("step 5004: since step 5002 train/loss")
    assert "optim.lr" in line


def test_losses_that_are_not_finite_are_ignored() -> None:
    alarms = warmed_up()
    for step in range(300, 900, 100):
        alarms.check_metrics(step, logged_values(step, loss=float("nan")))
    assert alarms.raised == []
    assert all(loss == 2.0 for loss in alarms.losses)


def test_padding_above_a_half(caplog: pytest.LogCaptureFixture) -> None:
    alarms = warmed_up()
    for step in range(300, 900, 100):
        alarms.check_metrics(step, logged_values(step, padding=0.51))
    assert alarms.raised == ["padding"]
    assert "trainer.batch_tokens" in caplog.messages[0]


@pytest.mark.parametrize("killed_after", range(0, 60, 7))
def test_a_resumed_run_says_what_an_uninterrupted_one_says(killed_after: int, caplog: pytest.LogCaptureFixture) -> None:
    def follow(alarms: Alarms, steps: range) -> None:
        for step in steps:
            alarms.check_metrics(10 * step, logged_values(10 * step, loss=9.0 if step > 40 else 2.0, padding=step / 60))
            if step % 5 == 0:
                alarms.check_outputs(10 * step, STUCK if step > 20 else SOUND, REFERENCES)

    whole = Alarms()
    follow(whole, range(1, 61))
    expected = list(caplog.messages)
    assert len(expected) >= 3
    caplog.clear()
    first = Alarms()
    follow(first, range(1, killed_after + 1))
    second = Alarms(**json.loads(json.dumps(asdict(first))))
    follow(second, range(killed_after + 1, 61))
    assert caplog.messages == expected
    assert second == whole


def test_half_of_a_batch_may_be_padding() -> None:
    alarms = warmed_up()
    for padding in (0.5, 0.5, 0.5, 0.5):
        alarms.check_metrics(300, logged_values(300, padding=padding))
    assert alarms.raised == []
    for _ in range(3):
        alarms.check_metrics(400, logged_values(400, padding=0.51))
    assert alarms.raised == ["padding"]
