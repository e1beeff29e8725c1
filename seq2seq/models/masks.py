"""Attention masks.

Masks are boolean, True = may be attended; `additive_mask` converts them to a term that is added to scores.
"""

from __future__ import annotations

import torch
from torch import Tensor


def safe_padding_mask(mask: Tensor) -> Tensor:
    """The padding mask [B, S] with its first position set to True: softmax gives NaN for fully masked rows.

    Sequences are padded on the right: the first position of any sequence with a token is True already.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | first


def causal_mask(length: int, device: torch.device) -> Tensor:
    """[1, T, T]: position t may attend to 0 … t."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril_()


def additive_mask(mask: Tensor) -> Tensor:
    """The mask as a term to add to scores: 0 where `mask` is True, -inf elsewhere; float32, same shape."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
