"""Linear layers whose bias and rectifier cost no pass over memory on the CPU.

In bfloat16 torch's own layer there first writes the bias into the result, then adds the product to it, and the
rectifier reads and writes the result once more. oneDNN does all of it at the end of the product; torch reaches that
kernel without a gradient, so the backward pass is written out here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """`torch.nn.Linear`, its product by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[*, in_features] to [*, out_features]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """The affine map x Wᵀ + b, and max(0, ·) of it if `relu`.

    Args:
        x: [*, K].
        weight: W, [N, K].
        bias: b, [N].
        relu: whether to rectify.

    Returns:
        [*, N], in autocast's dtype where that is on.
    """
    if compute_dtype(x) is torch.bfloat16 and x.device.type == "cpu" and _has_fused_kernel():
        y: Tensor = _Linear.apply(x, weight, bias, relu)  # type: ignore[no-untyped-call]
        return y
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of `x`: autocast's where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _has_fused_kernel() -> bool:
    if torch.compiler.is_compiling() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Linear(torch.autograd.Function):
    """`linear` in bfloat16; gradients of float32 parameters are rounded to bfloat16 first, as under autocast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        rows, w = x.to(torch.bfloat16).reshape(-1, x.size(-1)), weight.to(torch.bfloat16)
        after = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, w, bias.to(torch.bfloat16), after, [], "")
        ctx.save_for_backward(rows, w, y if relu else None)
        ctx.x_shape, ctx.x_dtype, ctx.dtypes = x.shape, x.dtype, (weight.dtype, bias.dtype)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, w, y = ctx.saved_tensors
        grad = grad.reshape(-1, grad.size(-1))
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        grad_x = (grad @ w).to(ctx.x_dtype).view(ctx.x_shape) if ctx.needs_input_grad[0] else None
        grad_w = (grad.t() @ rows).to(ctx.dtypes[0]) if ctx.needs_input_grad[1] else None
        grad_b = grad.sum(dim=0).to(ctx.dtypes[1]) if ctx.needs_input_grad[2] else None
        return grad_x, grad_w, grad_b, None
