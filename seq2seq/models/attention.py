"""Multi-head attention of the Transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2seq.models.kernels.attention import attend
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.linear import Linear, linear


class MultiHeadAttention(nn.Module):
    """Multi-head attention: Vaswani et al. (2017, section 3.2.2, arXiv:1706.03762).

    Args:
        d_model: size of queries, keys and values; divisible by `num_heads`.
        num_heads: H.
        scaled: whether to divide the scores by the square root of the head size.
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
        """Projects `x` [B, T, D] with the layer of each letter of `parts` ("q", "k", "v"): [B, H, T, D/H] each.

        Uses one matrix product for all of them, so that the backward pass computes the gradient of `x` in one go.
        """
        layers = [{"q": self.q_proj, "k": self.k_proj, "v": self.v_proj}[part] for part in parts]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        return [split_heads(y, self.num_heads) for y in linear(x, weight, bias).chunk(len(parts), dim=-1)]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention within `x` [B, T, D] under `mask` [B or 1, T or 1, T]: [B, T, D]."""
        q, k, v = self.project(x, parts="qkv")
        return self.merge_heads(attend(q, k, v, mask, scale=self.scale, dropout=self.dropout))

    def merge_heads(self, heads: Tensor) -> Tensor:
        """Concatenates heads [B, H, T, D/H] and applies the output projection: [B, T, D]."""
        y: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return y


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """View of `x` [B, T, D] as heads [B, H, T, D/H]."""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)
