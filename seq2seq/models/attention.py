"""Attention: the masks, and the multi-head form of the Transformer.

Masks are boolean, True = may be attended, and [B, T, S] or broadcast to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.dropout import Dropout

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
    if q.device.type == "cpu" and q.size(2) * k.size(2) <= _SHORT:
        weights: Tensor = dropout(attention_weights(q, k, mask, scale=scale).to(v.dtype))
        return weights @ v
    heads_mask = None if mask is None else mask.unsqueeze(1)
    rate = dropout.p if dropout.training else 0.0
    y: Tensor = F.scaled_dot_product_attention(q, k, v, heads_mask, dropout_p=rate, scale=scale)
    return y


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

    def __init__(self, d_model: int, num_heads: int, *, scaled: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5 if scaled else 1.0
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def project(self, x: Tensor, *, parts: str) -> list[Tensor]:
        """Projections of `x` [B, T, D], one for each letter of `parts` ("q", "k", "v"): [B, H, T, D/H] each.

        One matrix product for all: its backward reads and sums the gradient of `x` once.
        """
        layers = [{"q": self.q_proj, "k": self.k_proj, "v": self.v_proj}[part] for part in parts]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        return [split_heads(y, self.num_heads) for y in F.linear(x, weight, bias).chunk(len(parts), dim=-1)]

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
