"""Linear layers whose bias and rectifier cost no pass over memory on the CPU.

In bfloat16 torch's own layer there first writes the bias into the result, then adds the product to it, and the
rectifier reads and writes the result once more. oneDNN does all of it at the end of the product; torch reaches that
kernel without a gradient, so the backward pass is written out here.

oneDNN compiles a kernel of its own for each shape, which takes longer than most products, and keeps a thousand of them,
up to a MiB each. Batches of text have ever new shapes, so rows are added until their number is one of few.
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
    if _fused(x):
        rows = pad_rows(x.reshape(-1, x.size(-1)))
        y: Tensor = _Linear.apply(rows, weight, bias, relu)  # type: ignore[no-untyped-call]
        return y[: x.numel() // x.size(-1)].view(*x.shape[:-1], -1)
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def pad_rows(x: Tensor, *, dim: int = 0) -> Tensor:
    """`x` with zeros behind along `dim`, up to `round_up` of its size; on devices without such kernels `x` itself."""
    if not _fused(x):  # asked first: a compiler that saw the rounding would make a graph for each number of rows
        return x
    missing = round_up(x.size(dim)) - x.size(dim)
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, missing)) if missing else x


def round_up(rows: int) -> int:
    """The least multiple from `rows` on of 16 and of 1/32 of the power of two below: from 512 on 3 % more at most."""
    step = max(16, 1 << max(0, rows.bit_length() - 6))
    return -(-rows // step) * step


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and functions of numbers of `dtype` are computed in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of `x`: autocast's where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _fused(x: Tensor) -> bool:
    """Whether products of `x` are oneDNN's in bfloat16."""
    if x.device.type != "cpu" or compute_dtype(x) is not torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return has_fused_kernels()


def has_fused_kernels() -> bool:
    """Whether oneDNN's products of bfloat16 can be called, and the processor has the instructions."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Linear(torch.autograd.Function):
    """`linear` in bfloat16; gradients of float32 parameters are rounded to bfloat16 first, as under autocast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        rows, w = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        after = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, w, bias.to(torch.bfloat16), after, [], "")
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
