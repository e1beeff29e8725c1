"""The layers of the Transformer: Vaswani et al. (2017, section 3, arXiv:1706.03762)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.attention import MultiHeadAttention, attend, attention_weights
from seq2seq.models.base import Memory
from seq2seq.models.dropout import Dropout
from seq2seq.models.linear import Linear, linear, pad_rows
from seq2seq.models.transformer_config import (
    Activation,
    CopyAttention,
    NormPlacement,
    TransformerAttention,
    TransformerConfig,
)


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between: section 3.3 of the paper."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.d_model, config.d_ff)
        self.fc2 = Linear(config.d_ff, config.d_model)
        self.relu = config.activation is Activation.relu
        self.dropout = Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[*, D] to [*, D]."""
        rows = x.flatten(0, -2)
        inner = linear(pad_rows(rows), self.fc1.weight, self.fc1.bias, relu=self.relu)
        y: Tensor = self.fc2(self.dropout(inner if self.relu else F.gelu(inner)))
        return y[: rows.size(0)].view_as(x)


class Residual(nn.Module):
    """The frame around a block: normalisation before it or after the residual sum, dropout on its output.

    Pre-norm: Xiong et al. (2020, figure 1b, arXiv:2002.04745).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model, eps=1e-5)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm is NormPlacement.pre

    def enter(self, x: Tensor) -> Tensor:
        """What the block reads, of the stream `x` [*, D]."""
        return cast(Tensor, self.norm(x)) if self.pre else x

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after the block said `y` [*, D]."""
        total = self.dropout.add(x, y)
        return total if self.pre else cast(Tensor, self.norm(total))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D] to [B, S, D] under `mask` [B, 1, S]."""
        x = self.self_attn_residual.leave(x, self.self_attn(self.self_attn_residual.enter(x), mask))
        return self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, feed-forward.

    The source weights it gives are those of the head to copy by, or else the mean over the heads.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        one_head = config.copy and config.copy_attention is CopyAttention.head
        self.shown_heads = 1 if one_head else config.num_heads
        self.self_attn = _attention(config)
        self.self_attn_residual = Residual(config)
        self.encoder_attn = _attention(config)
        self.encoder_attn_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory, *, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        """[B, T, D] to [B, T, D] under the causal `mask` [1, T, T]; source weights [B, T, S] if needed."""
        x = self.self_attn_residual.leave(x, self.self_attn(self.self_attn_residual.enter(x), mask))
        attn, padding = self.encoder_attn, memory.mask.unsqueeze(1)
        k, v = attn.project(memory.states, parts="kv")
        (q,) = attn.project(self.encoder_attn_residual.enter(x), parts="q")
        y = attn.merge(attend(q, k, v, padding, scale=attn.scale, dropout=attn.dropout))
        weights = None
        if need_attention:
            heads = slice(self.shown_heads)
            weights = attention_weights(q[:, heads], k[:, heads], padding, scale=attn.scale).mean(dim=1)
        x = self.encoder_attn_residual.leave(x, y)
        x = self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))
        return x, weights


class CopyHead(nn.Module):
    """A head of attention that nothing but copying uses: softmax(W_q x · W_k h / sqrt(D)).

    Vaswani et al. (2017, eq. 1, arXiv:1706.03762) for the weights; x is what the decoder says, h the encoder.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.scale = d_model**-0.5

    def keys(self, states: Tensor) -> Tensor:
        """Of encoder states [B, S, D], once a source: [B, S, D]."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S] float32 of features [B, T, D] under the source mask [B, S]."""
        q, k = self.q_proj(x).unsqueeze(1), keys.unsqueeze(1)
        return attention_weights(q, k, mask.unsqueeze(1), scale=self.scale).squeeze(1)


def _attention(config: TransformerConfig) -> MultiHeadAttention:
    scaled = config.attention is TransformerAttention.scaled_dot
    return MultiHeadAttention(config.d_model, config.num_heads, scaled=scaled, dropout=config.attention_dropout)
