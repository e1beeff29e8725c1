"""Rules between keys of the trainer's section."""

import pytest

from seq2seq.errors import UserError
from seq2seq.training.config import MetricMode, TrainerConfig


@pytest.mark.parametrize(
    ("metric", "mode"), [("loss", "min"), ("ppl", "min"), ("ter", "min"), ("accuracy", "max"), ("bleu", "max")]
)
def test_a_mode_that_contradicts_the_metric_is_refused(metric: str, mode: str) -> None:
    for typed in ("auto", mode):
        assert TrainerConfig(metric=f"valid/{metric}", metric_mode=MetricMode(typed)).mode == mode
    other = {"min": "max", "max": "min"}[mode]
    with pytest.raises(UserError, match=rf"metric_mode={other} contradicts trainer\.metric=valid/{metric}"):
        TrainerConfig(metric=f"valid/{metric}", metric_mode=MetricMode(other))
