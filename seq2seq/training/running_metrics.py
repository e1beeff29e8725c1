"""Figures of the training steps since the last log: summed on the device, read when they are logged."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.models.output import LossSums
from seq2seq.system.distributed import World


@dataclass(frozen=True)
class Figures:
    """What a window shows, over all ranks; only updates that were made count, but for `skipped`.

    Attributes:
        loss: Sum over target tokens, and so are the next four; see ``LossSums``.
        grad_norm: Mean norm of the gradient; 0 if no update was made.
        skipped: Updates that were skipped.
    """

    loss: float
    nll: float
    correct: float
    tokens: float
    repetition: float
    grad_norm: float
    skipped: int


class RunningMetrics:
    """Sums over steps. They travel in checkpoints, so that a resumed run logs what an uninterrupted one does.

    Args:
        device: Where the figures come up.

    Attributes:
        steps: How many.
        seconds: Spent in them.
        padding: Sum of their shares of padding.
    """

    def __init__(self, device: torch.device):
        self.steps = 0
        self.seconds = 0.0
        self.padding = 0.0
        self._sums = torch.zeros(len(LossSums._fields) + 1, device=device)  # the losses' and the norm's
        self._skipped = torch.zeros(2, device=device)  # in the window, and in a row up to now

    def add(self, losses: Tensor, norm: Tensor, skip: Tensor) -> None:
        """Takes in a step.

        Args:
            losses: [5] float32, the fields of ``LossSums`` in their order.
            norm: [] float32, of the gradient.
            skip: [] bool, whether the update was skipped.
        """
        self._sums += torch.cat([losses, norm[None]]).masked_fill(skip, 0.0)
        self._skipped[0] += skip
        self._skipped[1] = (self._skipped[1] + 1) * skip
        self.steps += 1

    def read(self, world: World) -> Figures:
        """The figures so far; waits for the device."""
        sums = world.sum(self._sums.detach().to("cpu", torch.float64)).tolist()
        loss, nll, correct, tokens, repetition, norm = sums
        skipped = int(self._skipped[0])  # gradients are equal on all ranks, and so is what was skipped
        made = (self.steps - skipped) * world.size
        return Figures(loss, nll, correct, tokens, repetition, norm / made if made else 0.0, skipped)

    def skipped_in_a_row(self) -> int:
        """How many of the latest updates were skipped, one behind the other; waits for the device."""
        return int(self._skipped[1])

    def clear(self) -> None:
        """Begins anew after a log; updates skipped in a row are counted on."""
        self.steps, self.seconds, self.padding = 0, 0.0, 0.0
        self._sums.zero_()
        self._skipped[0] = 0

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "padding": self.padding,
            "sums": self._sums.tolist(),
            "skipped": self._skipped.tolist(),
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Goes on from what ``to_json`` gave.

        Raises:
            UserError: If these are other figures.
        """
        try:
            self.steps, self.seconds, self.padding = values["steps"], values["seconds"], values["padding"]
            self._sums.copy_(torch.tensor(values["sums"]))
            self._skipped.copy_(torch.tensor(values["skipped"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"state.json holds other figures of training, another version's perhaps: {error}"
            ) from error
