"""Linear layers with bias and ReLU fused into the matrix product on the CPU.

In bfloat16 on the CPU, `torch.nn.Linear` first writes the bias into the result, then adds the product to it, and ReLU
reads and writes the result once more. oneDNN fuses all of it into the matrix product, but torch exposes that kernel
without a gradient, so this module defines the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2seq.models.kernels.padding import is_fused, on_padded_rows


class Linear(nn.Linear):
    """`torch.nn.Linear` that computes its output with `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [*, in_features] to [*, out_features]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """The affine map x Wᵀ + b, followed by ReLU if `relu`.

    Args:
        x: [*, K].
        weight: W, [N, K].
        bias: b, [N].
        relu: whether to apply ReLU.

    Returns:
        [*, N], in autocast's dtype if autocast is enabled.
    """
    if not is_fused(x):
        return reference_linear(x, weight, bias, relu=relu)
    return on_padded_rows(lambda rows: _Linear.apply(rows, weight, bias, relu), x)


def reference_linear(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """`linear` in plain torch."""
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


class _Linear(torch.autograd.Function):
    """`linear` in bfloat16; gradients of float32 parameters are first rounded to bfloat16, as under autocast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        rows, w = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        activation = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, w, bias.to(torch.bfloat16), activation, [], "")
        ctx.save_for_backward(rows, w, y if relu else None)
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, w, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        grad_x = (grad @ w).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        grad_w = (grad.t() @ rows).to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        grad_b = grad.sum(dim=0).to(ctx.dtypes[2]) if ctx.needs_input_grad[2] else None
        return grad_x, grad_w, grad_b, None
