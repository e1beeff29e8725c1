"""Running metrics of training: summed on the device over the steps since the last log, read when they are logged."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.models.output import LossSums
from seq2seq.system.distributed import World


@dataclass(frozen=True)
class TrainingMetrics:
    """Metrics since the last log, over all ranks; skipped updates count for `skipped` only.

    Attributes:
        loss: Sum over target tokens, as are the next four; see ``LossSums``.
        grad_norm: Mean norm of the gradient; 0 if every update was skipped.
        flops: Floating-point operations of the matrix products, those of skipped updates included.
        skipped: Number of skipped updates.
    """

    loss: float
    nll: float
    correct: float
    tokens: float
    coverage_loss: float
    grad_norm: float
    flops: float
    skipped: int


class RunningMetrics:
    """Sums over steps. Checkpoints store them, so that a resumed run logs the same values as an uninterrupted one.

    Args:
        device: Device of the model, on which the sums are kept.

    Attributes:
        steps: Number of steps.
        seconds: Time spent in them.
        padding: Sum over the steps of the fraction of positions that are padding.
        flops: Floating-point operations of this rank's matrix products, see ``Multiplications``.
    """

    def __init__(self, device: torch.device):
        self.steps = 0
        self.seconds = 0.0
        self.padding = 0.0
        self.flops = 0.0
        self._sums = torch.zeros(len(LossSums._fields) + 1, device=device)  # the fields of LossSums, the gradient norm
        self._skipped = torch.zeros(2, device=device)  # skipped updates: since the last log, and in a row up to now

    def update(self, losses: Tensor, grad_norm: Tensor, skip: Tensor) -> None:
        """Adds a step.

        Args:
            losses: [5] float32, the fields of ``LossSums`` in their order.
            grad_norm: [] float32.
            skip: [] bool, whether the update was skipped.
        """
        self._sums += torch.cat([losses, grad_norm[None]]).masked_fill(skip, 0.0)
        self._skipped[0] += skip
        self._skipped[1] = (self._skipped[1] + 1) * skip
        self.steps += 1

    def compute(self, world: World) -> TrainingMetrics:
        """Returns the metrics so far; synchronizes with the device."""
        of_rank = torch.tensor([*self._sums.tolist(), self.flops], dtype=torch.float64)
        loss, nll, correct, tokens, coverage_loss, grad_norm, flops = world.sum(of_rank).tolist()
        skipped = int(self._skipped[0])  # the same on all ranks, because gradients are
        num_updates = (self.steps - skipped) * world.size
        mean_grad_norm = grad_norm / num_updates if num_updates else 0.0
        return TrainingMetrics(loss, nll, correct, tokens, coverage_loss, mean_grad_norm, flops, skipped)

    def consecutive_skips(self) -> int:
        """Returns how many updates in a row were skipped up to now; synchronizes with the device."""
        return int(self._skipped[1])

    def reset(self) -> None:
        """Zeroes the sums after a log; the count of consecutive skips continues."""
        self.steps, self.seconds, self.padding, self.flops = 0, 0.0, 0.0, 0.0
        self._sums.zero_()
        self._skipped[0] = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the sums as values that JSON can hold, for `restore`."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "padding": self.padding,
            "flops": self.flops,
            "sums": self._sums.tolist(),
            "skipped": self._skipped.tolist(),
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Loads what ``to_json`` returned.

        Raises:
            UserError: If the values are of another version.
        """
        try:
            self.steps, self.seconds, self.padding = values["steps"], values["seconds"], values["padding"]
            self.flops = values.get("flops", 0.0)  # earlier versions did not count them
            self._sums.copy_(torch.tensor(values["sums"]))
            self._skipped.copy_(torch.tensor(values["skipped"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"state.json holds other running metrics, perhaps of another version: {error}") from error
