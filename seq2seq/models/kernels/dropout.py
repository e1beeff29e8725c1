"""Dropout with a fast random generator on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BYTE = 256


class Dropout(nn.Module):
    """Zeroes elements with probability p in training and scales the rest by 1 / (1 - p).

    Srivastava et al. (2014, section 10, the scaled form). On the CPU, torch draws a Mersenne Twister number
    per element, which would take a third of a training step; here 64 random bits serve eight elements.
    On the CPU, p is therefore rounded to a multiple of 1/256 (0.1 becomes 26/256), and the scale uses the rounded p,
    so that the expectation is exact. Both variants draw from torch's default generator.

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
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # compiled dropout is fast already
            return F.dropout(x, self.p)
        return x * scaled_dropout_mask(x, self.p)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + forward(x)` (same shapes), in one pass over memory on the CPU."""
        native = x.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or self.p == 0.0 or native or x.dtype != residual.dtype:
            return residual + self(x)
        return torch.addcmul(residual, x, scaled_dropout_mask(x, self.p))

    def extra_repr(self) -> str:
        """The probability, for printing."""
        return f"p={self.p}"


def scaled_dropout_mask(x: Tensor, p: float) -> Tensor:
    """Random mask of 0 or 1 / (1 - p), of the shape and dtype of `x` (CPU), p rounded to a multiple of 1/256."""
    threshold = min(round(p * _BYTE), _BYTE - 1)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].ge_(threshold).view(x.shape)  # uint8: bool is far slower
    return kept.to(x.dtype).mul_(_BYTE / (_BYTE - threshold))
