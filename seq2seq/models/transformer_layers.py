"""The layers of the Transformer: Vaswani et al. (2017, section 3, arXiv:1706.03762)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.attention import MultiHeadAttention
from seq2seq.models.base import Memory
from seq2seq.models.kernels.attention import attend, attention_weights
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.linear import Linear, linear, pad_rows
from seq2seq.models.transformer_config import (
    Activation,
    CopyAttention,
    NormPlacement,
    TransformerAttention,
    TransformerConfig,
)


class FeedForward(nn.Module):
    """Position-wise feed-forward block: section 3.3 of the paper."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.d_model, config.d_ff)
        self.fc2 = Linear(config.d_ff, config.d_model)
        self.relu = config.activation is Activation.relu
        self.dropout = Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [*, D] to [*, D]."""
        rows = x.flatten(0, -2)
        inner = linear(pad_rows(rows), self.fc1.weight, self.fc1.bias, relu=self.relu)
        y: Tensor = self.fc2(self.dropout(inner if self.relu else F.gelu(inner)))
        return y[: rows.size(0)].view_as(x)


class Residual(nn.Module):
    """Residual connection around a block, with dropout and pre- or post-norm.

    Pre-norm: Xiong et al. (2020, figure 1b, arXiv:2002.04745).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model, eps=1e-5)
        self.dropout = Dropout(config.dropout)
        self.pre_norm = config.norm is NormPlacement.pre

    def block_input(self, x: Tensor) -> Tensor:
        """The block's input from the residual stream `x` [*, D]: normalised in pre-norm."""
        return cast(Tensor, self.norm(x)) if self.pre_norm else x

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds the block's output `y` [*, D] to the residual stream `x`; normalises the sum in post-norm."""
        total = self.dropout.add(x, y)
        return total if self.pre_norm else cast(Tensor, self.norm(total))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps [B, S, D] to [B, S, D] under the padding mask `mask` [B, 1, S]."""
        x = self.self_attn_residual.add(x, self.self_attn(self.self_attn_residual.block_input(x), mask))
        return self.feed_forward_residual.add(x, self.feed_forward(self.feed_forward_residual.block_input(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward block.

    Returned attention weights are the mean of the first `num_returned_heads` cross-attention heads: all of them, or the
    one that is used for copying.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        copy_head_only = config.copy and config.copy_attention is CopyAttention.head
        self.num_returned_heads = 1 if copy_head_only else config.num_heads
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.encoder_attn = _attention(config)
        self.encoder_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory, *, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Maps [B, T, D] to [B, T, D] under the causal `mask` [1, T, T]; attention weights [B, T, S] if requested."""
        x = self.self_attn_residual.add(x, self.self_attn(self.self_attn_residual.block_input(x), mask))
        attn, padding_mask = self.encoder_attn, memory.mask.unsqueeze(1)
        k, v = attn.project(memory.states, parts="kv")
        (q,) = attn.project(self.encoder_attn_residual.block_input(x), parts="q")
        y = attn.merge_heads(attend(q, k, v, padding_mask, scale=attn.scale, dropout=attn.dropout))
        weights = None
        if need_attention:
            heads = slice(self.num_returned_heads)
            weights = attention_weights(q[:, heads], k[:, heads], padding_mask, scale=attn.scale).mean(dim=1)
        x = self.encoder_attn_residual.add(x, y)
        x = self.feed_forward_residual.add(x, self.feed_forward(self.feed_forward_residual.block_input(x)))
        return x, weights


class CopyHead(nn.Module):
    """A separate attention head for copying only: softmax(W_q x · W_k h / sqrt(D)).

    Vaswani et al. (2017, eq. 1, arXiv:1706.03762) for the weights; x are decoder features, h encoder states.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.scale = d_model**-0.5

    def project_keys(self, states: Tensor) -> Tensor:
        """Keys [B, S, D] of encoder states [B, S, D]; computed once per source."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Attention weights [B, T, S] float32 of features [B, T, D] under the source mask [B, S]."""
        q, k = self.q_proj(x).unsqueeze(1), keys.unsqueeze(1)
        return attention_weights(q, k, mask.unsqueeze(1), scale=self.scale).squeeze(1)


def _attention(config: TransformerConfig) -> MultiHeadAttention:
    scaled = config.attention is TransformerAttention.scaled_dot
    return MultiHeadAttention(config.d_model, config.num_heads, scaled=scaled, dropout=config.attention_dropout)
