"""Pads batches to one of a few numbers of rows.

oneDNN compiles one bfloat16 kernel per shape, which takes longer than most matrix products, and caches a thousand of
them, up to a MiB each. The shapes of text batches vary, so rows are padded to one of a few sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.models.kernels.dtypes import compute_dtype
from seq2seq.models.kernels.selection import kernels_apply


def has_fused_kernels() -> bool:
    """Whether torch exposes oneDNN's fused bfloat16 kernel and the CPU supports bfloat16."""
    available = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_fused(x: Tensor) -> bool:
    """Whether matrix products of `x` use oneDNN's fused bfloat16 kernel."""
    if x.device.type != "cpu" or compute_dtype(x) is not torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return kernels_apply(x) and has_fused_kernels()


def round_up(rows: int) -> int:
    """Rounds up to a multiple of max(16, p / 32), p the largest power of two up to `rows`; adds about 3 % at most."""
    step = max(16, 1 << max(0, rows.bit_length() - 6))
    return -(-rows // step) * step


def pad_rows(x: Tensor, *, dim: int = 0) -> Tensor:
    """Pads `x` with zeros along `dim` to size `round_up(x.size(dim))`; returns `x` itself without fused kernels."""
    if not is_fused(x):  # checked first: rounding would make torch.compile trace one graph per number of rows
        return x
    padding = round_up(x.size(dim)) - x.size(dim)
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, padding)) if padding else x


def on_padded_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of rows [M, K], M padded, to `x` [*, K]: [*, N]."""
    rows = x.flatten(0, -2)
    return function(pad_rows(rows))[: rows.size(0)].view(*x.shape[:-1], -1)


def on_padded_batch(
    function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, states: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Applies a decoder to a padded batch: its outputs for the B sentences of the batch alone.

    Args:
        function: the decoder; all its inputs have the padded batch size, and both outputs have it first.
        x: embeddings [T, B, E].
        states: encoder states [B, S, D]; zeros are added.
        mask: [B, S] bool; all positions of the added sentences may be attended to.
    """
    batch_size = x.size(1)
    x = pad_rows(x, dim=1)
    mask = F.pad(mask, (0, 0, 0, x.size(1) - batch_size), value=True)
    features, weights = function(x, pad_rows(states), mask)
    return features[:batch_size], weights[:batch_size]
