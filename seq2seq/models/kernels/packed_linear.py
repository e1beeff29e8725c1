"""Inference-only linear layers with weights prepacked for many small products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.models.kernels.dtypes import compute_dtype
from seq2seq.models.kernels.padding import has_fused_kernels, pad_rows


class PackedLinear:
    """The affine map x Wᵀ + b without gradients, for weights that no longer change.

    The product's dtype is that of autocast, if it is enabled when the weights are packed, else theirs.

    A product with few rows is bound by reading the weights, so they are stored in the layout that the kernel reads
    fastest: oneDNN's own for bfloat16 on the CPU, [K, N] elsewhere. Both are up to twice as fast as [N, K].

    Args:
        weights: W, [N, K]; several weights are concatenated along N.
        biases: b, [N], one per weight, or none.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor] = ()) -> None:
        dtype = compute_dtype(weights[0])
        weight = (torch.cat([*weights]) if len(weights) > 1 else weights[0]).detach().to(dtype)
        self._bias = torch.cat([*biases]).detach().to(dtype) if biases else None
        self._fused = dtype is torch.bfloat16 and weight.device.type == "cpu" and has_fused_kernels()
        self._dtype, self._size = dtype, weight.size(0)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._fused else weight.t().contiguous()

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Maps [*, K] to [*, N], followed by ReLU if `relu`."""
        rows = x.to(self._dtype).reshape(-1, x.size(-1))
        if self._fused:
            activation = "relu" if relu else "none"
            y: Tensor = torch.ops.mkldnn._linear_pointwise(pad_rows(rows), self._weight, self._bias, activation, [], "")
            y = y[: rows.size(0)]
        else:
            y = rows @ self._weight if self._bias is None else torch.addmm(self._bias, rows, self._weight)
            y = y.relu_() if relu else y
        return y.view(*x.shape[:-1], self._size)
