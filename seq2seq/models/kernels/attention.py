"""Scaled dot-product attention: on the CPU, short rows as plain matrix products with a hand-written backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.models.kernels.dropout import Dropout, scaled_dropout_mask
from seq2seq.models.kernels.dtypes import wide_dtype
from seq2seq.models.kernels.selection import kernels_apply
from seq2seq.models.masks import additive_mask

# Up to this many scores per head (T × S), plain matrix products beat the CPU's fused kernel, whose backward pass is
# slow for short rows (5 to 10 times slower at 16 to 64 positions, 3 times at 128). Beyond it, the scores take too much
# memory.
_MAX_UNFUSED_SCORES = 512 * 512


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, dropout: Dropout) -> Tensor:
    """Scaled dot-product attention, softmax(scale · q kᵀ) v: Vaswani et al. (2017, eq. 1, arXiv:1706.03762).

    Args:
        q: [B, H, T, D/H].
        k: [B, H, S, D/H].
        v: [B, H, S, D/H].
        mask: [B or 1, T or 1, S] bool, at least one True per row.
        scale: factor of the scores.
        dropout: applied to the attention weights.

    Returns:
        [B, H, T, D/H].
    """
    if not kernels_apply(q):
        return reference_attend(q, k, v, mask, scale=scale, dropout=dropout)
    rate = dropout.p if dropout.training else 0.0
    eager_cpu = q.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager_cpu and q.size(2) * k.size(2) <= _MAX_UNFUSED_SCORES:
        return _UnfusedAttention.apply(q, k, v, mask, scale, rate)
    return F.scaled_dot_product_attention(q, k, v, mask.unsqueeze(1), dropout_p=rate, scale=scale)


def reference_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, dropout: Dropout) -> Tensor:
    """`attend` in plain torch."""
    weights = dropout(attention_weights(q, k, mask, scale=scale))
    return weights.to(v.dtype) @ v


def attention_weights(q: Tensor, k: Tensor, mask: Tensor, *, scale: float) -> Tensor:
    """The weights softmax(scale · q kᵀ) of `attend`, [B, H, T, S], at least float32, without dropout."""
    scores = (q * scale) @ k.transpose(-1, -2)
    scores = scores.to(wide_dtype(scores.dtype))  # in bfloat16 softmax is slower and less accurate
    return torch.softmax(scores + additive_mask(mask).unsqueeze(1), dim=-1)


class _UnfusedAttention(torch.autograd.Function):
    """`attend` as matrix products over contiguous heads; saves the attention weights for the backward pass.

    Products are in the inputs' dtype, the softmax is in float32: in bfloat16 it is slower and less accurate.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, rate: float) -> Tensor:
        shape, dtype = q.shape, q.dtype
        with torch.autocast(q.device.type, enabled=False):
            q = torch.mul(q, scale, out=q.new_empty(shape)).flatten(0, 1)
            k, v = k.contiguous().flatten(0, 1), v.contiguous().flatten(0, 1)
            scores = torch.bmm(q, k.transpose(1, 2)).to(wide_dtype(dtype))
            scores.view(*shape[:3], -1).add_(additive_mask(mask).unsqueeze(1))
            weights = torch.softmax(scores, dim=-1).to(dtype)
            dropout_mask = scaled_dropout_mask(weights, rate) if rate else None
            y = torch.bmm(weights if dropout_mask is None else weights * dropout_mask, v)
        ctx.save_for_backward(q, k, v, weights, dropout_mask)
        ctx.batch_and_heads, ctx.scale = shape[:2], scale
        return y.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, dropout_mask = ctx.saved_tensors
        grad = grad.contiguous().flatten(0, 1)
        grad_v = torch.bmm((weights if dropout_mask is None else weights * dropout_mask).transpose(1, 2), grad)
        grad_weights = torch.bmm(grad, v.transpose(1, 2))
        if dropout_mask is not None:
            grad_weights.mul_(dropout_mask)
        wide = wide_dtype(weights.dtype)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights.to(wide), weights.to(wide), -1, wide)
        grad_scores = grad_scores.to(weights.dtype)
        grad_q, grad_k = torch.bmm(grad_scores, k).mul_(ctx.scale), torch.bmm(grad_scores.transpose(1, 2), q)
        grads = (x.view(*ctx.batch_and_heads, *x.shape[1:]) for x in (grad_q, grad_k, grad_v))
        return *grads, None, None, None
