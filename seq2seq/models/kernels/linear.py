"""Linear layers with bias and ReLU fused into the matrix product on the CPU.

In bfloat16 on the CPU, `torch.nn.Linear` first writes the bias into the result, then adds the product to it, and ReLU
reads and writes the result once more. oneDNN fuses all of it into the matrix product, but torch exposes that kernel
without a gradient, so this module defines the backward pass.

oneDNN compiles one kernel per shape, which takes longer than most matrix products, and caches a thousand of them,
up to a MiB each. The shapes of text batches vary, so rows are padded to one of a few sizes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
    if _fused(x):
        rows = pad_rows(x.reshape(-1, x.size(-1)))
        y: Tensor = _Linear.apply(rows, weight, bias, relu)  # type: ignore[no-untyped-call]
        return y[: x.numel() // x.size(-1)].view(*x.shape[:-1], -1)
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def pad_rows(x: Tensor, *, dim: int = 0) -> Tensor:
    """Pads `x` with zeros along `dim` to size `round_up(x.size(dim))`; returns `x` itself without fused kernels."""
    if not _fused(x):  # checked first: rounding would make torch.compile trace one graph per number of rows
        return x
    padding = round_up(x.size(dim)) - x.size(dim)
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, padding)) if padding else x


def round_up(rows: int) -> int:
    """Rounds up to a multiple of max(16, p / 32), p the largest power of two up to `rows`; adds about 3 % at most."""
    step = max(16, 1 << max(0, rows.bit_length() - 6))
    return -(-rows // step) * step


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The accumulation dtype of `dtype`, for sums and elementwise functions: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of `x`: autocast's if autocast is enabled, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _fused(x: Tensor) -> bool:
    """Whether matrix products of `x` use oneDNN's fused bfloat16 kernel."""
    if x.device.type != "cpu" or compute_dtype(x) is not torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return has_fused_kernels()


def has_fused_kernels() -> bool:
    """Whether torch exposes oneDNN's fused bfloat16 kernel and the CPU supports bfloat16."""
    available = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
