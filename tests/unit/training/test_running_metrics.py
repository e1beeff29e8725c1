import json
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.system.distributed import World
from seq2seq.training.running_metrics import RunningMetrics, TrainingMetrics

CPU = torch.device("cpu")
LOSSES = ([8.0, 7.0, 2.0, 4.0, 1.0], [3.0, 2.5, 1.0, 2.0, 0.5], [5.0, 4.0, 0.0, 3.0, 0.0])
NORMS = (1.5, 0.5, 4.0)


def metrics_with(skipped: tuple[bool, ...] = ()) -> RunningMetrics:
    """Metrics of the steps above, some of them skipped."""
    made = RunningMetrics(CPU)
    for losses, norm, skip in zip(LOSSES, NORMS, skipped, strict=False):
        made.update(torch.tensor(losses), torch.tensor(norm), torch.tensor(skip))
    return made


def test_metrics_are_sums_over_the_updates_made_and_their_mean_norm() -> None:
    assert metrics_with().compute(World()) == TrainingMetrics(0, 0, 0, 0, 0, 0, 0, skipped=0)
    sums = [sum(column) for column in zip(*LOSSES, strict=True)]
    assert metrics_with((False, False, False)).compute(World()) == TrainingMetrics(
        *sums, grad_norm=2.0, flops=0, skipped=0
    )
    first_and_last = [sum(column) for column in zip(LOSSES[0], LOSSES[2], strict=True)]
    assert metrics_with((False, True, False)).compute(World()) == TrainingMetrics(
        *first_and_last, grad_norm=2.75, flops=0, skipped=1
    )
    assert metrics_with((True, True, True)).compute(World()) == TrainingMetrics(0, 0, 0, 0, 0, 0, 0, skipped=3)


def test_a_skipped_update_leaves_no_nan_behind() -> None:
    of_two = metrics_with((False, False))
    of_two.update(torch.full((5,), torch.nan), torch.tensor(torch.inf), torch.tensor(True))
    assert of_two.compute(World()) == TrainingMetrics(11.0, 9.5, 3.0, 6.0, 1.5, grad_norm=1.0, flops=0, skipped=1)


def test_ranks_add_up_and_the_norm_stays_a_mean() -> None:
    class Two(World):
        """The other rank has the same."""

        def sum(self, values: Tensor) -> Tensor:
            return 2 * values

    of_rank = metrics_with((False, False))
    of_rank.flops = 7e15 + 1  # more digits than float32 has
    assert of_rank.compute(Two(size=2)) == TrainingMetrics(
        22.0, 19.0, 6.0, 12.0, 3.0, grad_norm=1.0, flops=14e15 + 2, skipped=0
    )


def test_updates_skipped_in_a_row_are_counted_across_logs() -> None:
    counted = metrics_with((True, False, True))
    assert counted.consecutive_skips() == 1
    counted.reset()
    counted.update(torch.zeros(5), torch.tensor(0.0), torch.tensor(True))
    assert counted.consecutive_skips() == 2
    assert counted.compute(World()).skipped == 1, "but the other sums start again at 0"
    counted.update(torch.zeros(5), torch.tensor(0.0), torch.tensor(False))
    assert counted.consecutive_skips() == 0


def test_after_a_log_nothing_is_left() -> None:
    cleared = metrics_with((False, True))
    cleared.seconds, cleared.padding, cleared.flops = 3.0, 0.25, 8.0
    cleared.reset()
    assert (cleared.steps, cleared.seconds, cleared.padding) == (0, 0.0, 0.0)
    assert cleared.compute(World()) == RunningMetrics(CPU).compute(World())


def test_metrics_restored_from_json_continue_as_if_uninterrupted() -> None:
    here, there = metrics_with((False, True)), RunningMetrics(CPU)
    here.seconds, here.padding, here.flops = 3.0, 0.25, 8.0
    there.restore(json.loads(json.dumps(here.to_json())))
    for each in (here, there):
        each.update(torch.tensor(LOSSES[2]), torch.tensor(NORMS[2]), torch.tensor(True))
    assert there.compute(World()) == here.compute(World())
    assert there.consecutive_skips() == here.consecutive_skips() == 2
    assert (there.steps, there.seconds, there.padding) == (3, 3.0, 0.25)


@pytest.mark.parametrize("change", [{"sums": [0.0] * 3}, {"skipped": "no"}, {"steps": None, "sums": None}])
def test_metrics_of_another_version_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"state\.json"):
        RunningMetrics(CPU).restore(metrics_with().to_json() | change)
    with pytest.raises(UserError, match=r"state\.json"):
        RunningMetrics(CPU).restore({})


def test_metrics_saved_before_operations_were_counted_are_restored() -> None:
    saved = metrics_with((False, True)).to_json()
    del saved["flops"]
    there = RunningMetrics(CPU)
    there.restore(saved)
    assert (there.steps, there.flops) == (2, 0.0)
