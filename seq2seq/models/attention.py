"""Attention: the masks, and the multi-head form of the Transformer.

Masks are boolean, True = may be attended, and [B, T, S] or broadcast to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2seq.models.dropout import Dropout, keep_scale
from seq2seq.models.linear import Linear, linear, wide_dtype

# Up to this many scores a head (T × S) the plain products beat the CPU's fused kernel, whose backward is slow
# for short rows (5 to 10 times at 16 to 64 positions, 3 at 128); beyond it the memory for the scores decides.
_SHORT = 512 * 512


def attendable(mask: Tensor) -> Tensor:
    """The padding mask [B, S] with the first position opened: a row of nothing but padding gives no NaN.

    The first position of a sequence with any token holds a token, so nothing else changes.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | first


def causal_mask(length: int, device: torch.device) -> Tensor:
    """[1, T, T]: position t may attend to 0 … t."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril_()


def score_bias(mask: Tensor) -> Tensor:
    """What is added to scores: 0 where `mask` is True, -inf elsewhere; float32 of its shape."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float, dropout: Dropout) -> Tensor:
    """Weighted sums of the values, softmax(scale · q kᵀ) v: Vaswani et al. (2017, eq. 1, arXiv:1706.03762).

    Args:
        q: [B, H, T, D/H].
        k: [B, H, S, D/H].
        v: [B, H, S, D/H].
        mask: [B or 1, T or 1, S] bool or None; at least one True in each row.
        scale: what the scores are multiplied by.
        dropout: applied to the weights.

    Returns:
        [B, H, T, D/H].
    """
    rate = dropout.p if dropout.training else 0.0
    plain = q.device.type == "cpu" and not torch.compiler.is_compiling()
    y: Tensor
    if plain and q.size(2) * k.size(2) <= _SHORT:
        y = _ShortAttention.apply(q, k, v, mask, scale, rate)  # type: ignore[no-untyped-call]
    else:
        heads_mask = None if mask is None else mask.unsqueeze(1)
        y = F.scaled_dot_product_attention(q, k, v, heads_mask, dropout_p=rate, scale=scale)
    return y


class _ShortAttention(torch.autograd.Function):
    """`attend` by plain products over heads that lie side by side in memory; keeps the weights for the backward pass.

    Products are in the inputs' dtype, the softmax is in float32: that of bfloat16 is slower, and coarser.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, rate: float) -> Tensor:
        shape, dtype = q.shape, q.dtype
        with torch.autocast(q.device.type, enabled=False):
            q = torch.mul(q, scale, out=q.new_empty(shape)).flatten(0, 1)
            k, v = k.contiguous().flatten(0, 1), v.contiguous().flatten(0, 1)
            scores = torch.bmm(q, k.transpose(1, 2)).to(wide_dtype(dtype))
            if mask is not None:
                scores.view(*shape[:3], -1).add_(score_bias(mask).unsqueeze(1))
            weights = torch.softmax(scores, dim=-1).to(dtype)
            kept = keep_scale(weights, rate) if rate else None
            y = torch.bmm(weights if kept is None else weights * kept, v)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.heads, ctx.scale = shape[:2], scale
        return y.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, kept = ctx.saved_tensors
        grad = grad.contiguous().flatten(0, 1)
        grad_v = torch.bmm((weights if kept is None else weights * kept).transpose(1, 2), grad)
        grad_weights = torch.bmm(grad, v.transpose(1, 2))
        if kept is not None:
            grad_weights.mul_(kept)
        wide = wide_dtype(weights.dtype)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights.to(wide), weights.to(wide), -1, wide)
        grad_scores = grad_scores.to(weights.dtype)
        grad_q, grad_k = torch.bmm(grad_scores, k).mul_(ctx.scale), torch.bmm(grad_scores.transpose(1, 2), q)
        return (*(part.view(*ctx.heads, *part.shape[1:]) for part in (grad_q, grad_k, grad_v)), None, None, None)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """softmax(scale · q kᵀ), [B, H, T, S] float32, of queries and keys as `attend` takes them."""
    scores = ((q * scale) @ k.transpose(-1, -2)).float()  # the softmax of bfloat16 is slower, and coarser
    if mask is not None:
        scores = scores + score_bias(mask).unsqueeze(1)
    return torch.softmax(scores, dim=-1)


class MultiHeadAttention(nn.Module):
    """Attention in H subspaces: Vaswani et al. (2017, section 3.2.2, arXiv:1706.03762).

    Args:
        d_model: size of queries, keys and values; divisible by `num_heads`.
        num_heads: H.
        scaled: divide the scores by the square root of the head size.
        dropout: probability of dropping an attention weight.
    """

    def __init__(self, d_model: int, num_heads: int, *, scaled: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5 if scaled else 1.0
        self.q_proj = Linear(d_model, d_model)
        self.k_proj = Linear(d_model, d_model)
        self.v_proj = Linear(d_model, d_model)
        self.out_proj = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def project(self, x: Tensor, *, parts: str) -> list[Tensor]:
        """Projections of `x` [B, T, D], one for each letter of `parts` ("q", "k", "v"): [B, H, T, D/H] each.

        One matrix product for all: its backward reads and sums the gradient of `x` once.
        """
        layers = [{"q": self.q_proj, "k": self.k_proj, "v": self.v_proj}[part] for part in parts]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        return [split_heads(y, self.num_heads) for y in linear(x, weight, bias).chunk(len(parts), dim=-1)]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention within `x` [B, T, D] under `mask` [B or 1, T or 1, T]: [B, T, D]."""
        q, k, v = self.project(x, parts="qkv")
        return self.merge(attend(q, k, v, mask, scale=self.scale, dropout=self.dropout))

    def merge(self, heads: Tensor) -> Tensor:
        """The output projection of heads [B, H, T, D/H]: [B, T, D]."""
        y: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return y


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, T, D] as heads [B, H, T, D/H], a view."""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)
