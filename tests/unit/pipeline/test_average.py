"""Which checkpoints `seq2seq average` takes."""

import pytest

from seq2seq.config.commands import AverageConfig, AverageOf
from seq2seq.errors import UserError
from seq2seq.pipeline.average import select_steps

STEPS = [10, 20, 30, 40]
RANKED = [5, 20, 40, 10]  # the best is not kept any more, and 30 was never evaluated


@pytest.mark.parametrize(
    ("which", "count", "expected"),
    [
        (AverageOf.last, 1, [40]),
        (AverageOf.last, 2, [30, 40]),
        (AverageOf.last, None, [10, 20, 30, 40]),
        (AverageOf.best, 1, [20]),
        (AverageOf.best, 2, [20, 40]),
        (AverageOf.best, None, [10, 20, 40]),
    ],
)
def test_the_last_or_the_best_that_are_kept(which: AverageOf, count: int | None, expected: list[int]) -> None:
    assert select_steps(STEPS, RANKED, AverageConfig(which=which, count=count)) == expected


def test_nothing_to_average_is_said_to_be_so() -> None:
    for steps, ranked in (([], [3]), ([3], [])):
        which = AverageOf.last if not steps else AverageOf.best
        with pytest.raises(UserError, match=f"which={which.value}: there is no checkpoint to average yet"):
            select_steps(steps, ranked, AverageConfig(which=which))


def test_more_than_are_kept_are_refused() -> None:
    with pytest.raises(UserError, match="count=4: there are only 3 checkpoints to average"):
        select_steps(STEPS, RANKED, AverageConfig(which=AverageOf.best, count=4))
