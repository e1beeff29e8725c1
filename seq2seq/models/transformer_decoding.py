"""The decoder layers of the Transformer as search runs them: one position a call, without gradients or dropout.

Keys and values are written once and never move with the beams. The beams of a sentence attend together, as K queries to
the entries of all of them, and each sees those of its own past alone. So nothing but a small mask is copied when beams
take each other's places; looking past what belongs to others costs less than moving what belongs to each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.packed_linear import PackedLinear
from seq2seq.models.transformer_layers import DecoderLayer

_FIRST_ROOM = 32  # entries


class KVCache:
    """What a sentence is attended to by, [B, H, 2, P, D/H], in memory that doubles when it is full.

    Args:
        entries: the first ones, P = 0 or more.
    """

    def __init__(self, entries: Tensor) -> None:
        self._memory, self._count = entries, entries.size(3)

    def append(self, entries: Tensor) -> None:
        """Adds K entries, [B, H, 2, K, D/H]."""
        old, first = self._memory, self._count
        self._count = first + entries.size(3)
        if self._count > old.size(3):
            room = max(_FIRST_ROOM, 2 * self._count)
            self._memory = old.new_empty(*entries.shape[:3], room, entries.size(4))
            self._memory[:, :, :, :first] = old[:, :, :, :first]
        self._memory[:, :, :, first : self._count] = entries

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B × H, P, D/H]; views."""
        keys, values = self._memory[:, :, :, : self._count].flatten(0, 1).unbind(1)
        return keys, values

    def keep(self, sentences: Tensor, moved: Tensor) -> None:
        """Drops all sentences but `sentences` [B'] int64; copies the rows that change, `moved` [M] int64, alone."""
        rows = self._memory.index_select(0, sentences.index_select(0, moved))
        self._memory = self._memory.index_copy_(0, moved, rows)[: sentences.size(0)]


@dataclass
class LayerCache:
    """One decoder layer's keys and values: of the target so far, and of the source."""

    target: KVCache
    source: KVCache

    def keep(self, sentences: Tensor, moved: Tensor) -> None:
        """See `KVCache.keep`."""
        self.target.keep(sentences, moved)
        self.source.keep(sentences, moved)


class DecodingLayer:
    """A decoder layer, its weights put together once for many steps.

    Args:
        layer: whose weights and sizes.
        dtype: of the matrix products.
    """

    def __init__(self, layer: DecoderLayer, dtype: torch.dtype) -> None:
        own, across, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        self.layer, self.heads, self.scale = layer, own.num_heads, own.scale
        # In bfloat16 the CPU compiles a kernel for each number of entries, which takes longer than such small products.
        self.attention_dtype = torch.float32 if own.q_proj.weight.device.type == "cpu" else dtype
        self.own_qkv = _pack(own.q_proj, own.k_proj, own.v_proj, dtype=dtype)
        self.own_out = _pack(own.out_proj, dtype=dtype)
        self.across_q = _pack(across.q_proj, dtype=dtype)
        self.across_kv = _pack(across.k_proj, across.v_proj, dtype=dtype)
        self.across_out = _pack(across.out_proj, dtype=dtype)
        self.fc1, self.fc2 = _pack(feed_forward.fc1, dtype=dtype), _pack(feed_forward.fc2, dtype=dtype)

    def start(self, states: Tensor) -> LayerCache:
        """The cache before the first position, of encoder states [B, S, D]."""
        source = self._split(self.across_kv(states), 2).permute(0, 3, 2, 1, 4).to(self.attention_dtype).contiguous()
        return LayerCache(target=KVCache(source[:, :, :, :0]), source=KVCache(source))

    def step(self, x: Tensor, cache: LayerCache, ancestry: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """One position of each row.

        Args:
            x: [B, K, D].
            cache: gets the position's keys and values.
            ancestry: [B × H, K, P + K], added to the scores of the target's entries, the new ones last.
            padding: [B × H, K, S], added to the scores of the source's positions.

        Returns:
            [B, K, D], and the weights of the source's positions [B × H, K, S] float32.
        """
        layer = self.layer
        qkv = self._split(self.own_qkv(layer.self_attn_residual.enter(x)), 3)
        cache.target.append(qkv[:, :, 1:].permute(0, 3, 2, 1, 4))
        y, _ = self._attend(qkv[:, :, 0], cache.target, ancestry)
        x = layer.self_attn_residual.leave(x, self.own_out(y))
        q = self._split(self.across_q(layer.encoder_attn_residual.enter(x)), 1)
        y, weights = self._attend(q[:, :, 0], cache.source, padding)
        x = layer.encoder_attn_residual.leave(x, self.across_out(y))
        relu = layer.feed_forward.relu
        inner = self.fc1(layer.feed_forward_residual.enter(x), relu=relu)
        inner = inner if relu else F.gelu(inner)
        return layer.feed_forward_residual.leave(x, self.fc2(inner)), weights

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """[B, K, parts × D] as [B, K, parts, H, D/H]."""
        return x.view(*x.shape[:2], parts, self.heads, x.size(2) // (parts * self.heads))

    def _attend(self, q: Tensor, cache: KVCache, bias: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(scale · q kᵀ + bias) v: Vaswani et al. (2017, eq. 1, arXiv:1706.03762).

        Args:
            q: [B, K, H, D/H].
            cache: P keys and values.
            bias: [B × H, K, P].

        Returns:
            [B, K, D], and the weights [B × H, K, P] float32.
        """
        keys, values = cache.read()
        queries = q.transpose(1, 2).flatten(0, 1).to(keys.dtype)
        with torch.autocast(q.device.type, enabled=False):
            scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=self.scale)
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            y = torch.bmm(weights.to(values.dtype), values).view(-1, self.heads, *q.shape[1::2])
        return y.transpose(1, 2).flatten(2), weights


def _pack(*layers: nn.Linear, dtype: torch.dtype) -> PackedLinear:
    """Linear layers of one input as one."""
    return PackedLinear([layer.weight for layer in layers], [layer.bias for layer in layers], dtype=dtype)
