"""Dropout whose masks are cheap on the CPU too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BYTE = 256


class Dropout(nn.Module):
    """Zeroes elements with probability p in training and scales the rest by 1 / (1 - p).

    Srivastava et al. (2014, section 10, the scaled form). On the CPU, torch draws a Mersenne Twister number
    for each element, which would cost a third of a training step; here 64 random bits serve eight elements.
    So p is rounded there to a multiple of 1/256 (0.1 becomes 26/256), and the scale is that of the rounded p:
    the expectation is exact. Both ways draw from torch's default generator, whose state is all that a resumed
    run needs.

    Args:
        p: probability in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` [*] with elements dropped."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # the compiler draws cheaply itself
            return F.dropout(x, self.p)
        y: Tensor = x * keep_scale(x, self.p)
        return y

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + forward(x)` (same shapes), in one pass over memory on the CPU."""
        elsewhere = x.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or self.p == 0.0 or elsewhere or x.dtype != residual.dtype:
            y: Tensor = residual + self(x)
            return y
        return torch.addcmul(residual, x, keep_scale(x, self.p))

    def extra_repr(self) -> str:
        """The probability, for printing."""
        return f"p={self.p}"


def keep_scale(x: Tensor, p: float) -> Tensor:
    """What dropout multiplies `x` by: 0 or 1 / (1 - p), of its shape and dtype, p rounded to 1/256 (CPU)."""
    dropped = min(round(p * _BYTE), _BYTE - 1)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].ge_(dropped).view(x.shape)  # bytes: bool is slower by far
    return kept.to(x.dtype).mul_(_BYTE / (_BYTE - dropped))
