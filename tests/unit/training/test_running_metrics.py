import json
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.system.distributed import World
from seq2seq.training.running_metrics import Figures, RunningMetrics

CPU = torch.device("cpu")
LOSSES = ([8.0, 7.0, 2.0, 4.0, 1.0], [3.0, 2.5, 1.0, 2.0, 0.5], [5.0, 4.0, 0.0, 3.0, 0.0])
NORMS = (1.5, 0.5, 4.0)


def window(skipped: tuple[bool, ...] = ()) -> RunningMetrics:
    """Of the steps above, some of them skipped."""
    made = RunningMetrics(CPU)
    for losses, norm, skip in zip(LOSSES, NORMS, skipped, strict=False):
        made.add(torch.tensor(losses), torch.tensor(norm), torch.tensor(skip))
    return made


def test_figures_are_sums_over_the_updates_made_and_their_mean_norm() -> None:
    assert window().read(World()) == Figures(0, 0, 0, 0, 0, 0, skipped=0)
    sums = [sum(column) for column in zip(*LOSSES, strict=True)]
    assert window((False, False, False)).read(World()) == Figures(*sums, grad_norm=2.0, skipped=0)
    first_and_last = [sum(column) for column in zip(LOSSES[0], LOSSES[2], strict=True)]
    assert window((False, True, False)).read(World()) == Figures(*first_and_last, grad_norm=2.75, skipped=1)
    assert window((True, True, True)).read(World()) == Figures(0, 0, 0, 0, 0, 0, skipped=3)


def test_a_skipped_update_leaves_no_nan_behind() -> None:
    of_two = window((False, False))
    of_two.add(torch.full((5,), torch.nan), torch.tensor(torch.inf), torch.tensor(True))
    assert of_two.read(World()) == Figures(11.0, 9.5, 3.0, 6.0, 1.5, grad_norm=1.0, skipped=1)


def test_ranks_add_up_and_the_norm_stays_a_mean() -> None:
    class Two(World):
        """The other rank has the same."""

        def sum(self, values: Tensor) -> Tensor:
            return 2 * values

    assert window((False, False)).read(Two(size=2)) == Figures(22.0, 19.0, 6.0, 12.0, 3.0, grad_norm=1.0, skipped=0)


def test_updates_skipped_in_a_row_are_counted_across_logs() -> None:
    counted = window((True, False, True))
    assert counted.skipped_in_a_row() == 1
    counted.clear()
    counted.add(torch.zeros(5), torch.tensor(0.0), torch.tensor(True))
    assert counted.skipped_in_a_row() == 2
    assert counted.read(World()).skipped == 1, "but the figures begin anew"
    counted.add(torch.zeros(5), torch.tensor(0.0), torch.tensor(False))
    assert counted.skipped_in_a_row() == 0


def test_after_a_log_nothing_is_left() -> None:
    cleared = window((False, True))
    cleared.seconds, cleared.padding = 3.0, 0.25
    cleared.clear()
    assert (cleared.steps, cleared.seconds, cleared.padding) == (0, 0.0, 0.0)
    assert cleared.read(World()) == RunningMetrics(CPU).read(World())


def test_a_window_goes_on_after_json_as_if_it_had_not_been_away() -> None:
    here, there = window((False, True)), RunningMetrics(CPU)
    here.seconds, here.padding = 3.0, 0.25
    there.restore(json.loads(json.dumps(here.to_json())))
    for each in (here, there):
        each.add(torch.tensor(LOSSES[2]), torch.tensor(NORMS[2]), torch.tensor(True))
    assert there.read(World()) == here.read(World())
    assert there.skipped_in_a_row() == here.skipped_in_a_row() == 2
    assert (there.steps, there.seconds, there.padding) == (3, 3.0, 0.25)


@pytest.mark.parametrize("change", [{"sums": [0.0] * 3}, {"skipped": "no"}, {"steps": None, "sums": None}])
def test_figures_of_another_version_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"state\.json"):
        RunningMetrics(CPU).restore(window().to_json() | change)
    with pytest.raises(UserError, match=r"state\.json"):
        RunningMetrics(CPU).restore({})
