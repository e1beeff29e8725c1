"""Decoder layers of the Transformer for incremental decoding: one position per call, without gradients or dropout.

Keys and values are written once and never reordered. The beams of a sentence are K queries over the cache entries of
all its beams, and an additive beam mask hides the entries that are not part of a beam's own history. Reordering beams
therefore copies only this small mask; attending over masked entries costs less than moving the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.kernels.packed_linear import PackedLinear
from seq2seq.models.transformer_layers import DecoderLayer

_MIN_CAPACITY = 32  # entries


class KVCache:
    """Keys and values of P entries per sentence, [B, H, 2, P, D/H], in a buffer that doubles when it is full.

    Args:
        entries: the initial entries, P = 0 or more.
    """

    def __init__(self, entries: Tensor) -> None:
        self._buffer, self._length = entries, entries.size(3)

    def append(self, entries: Tensor) -> None:
        """Appends K entries per sentence, [B, H, 2, K, D/H]."""
        old, start = self._buffer, self._length
        self._length = start + entries.size(3)
        if self._length > old.size(3):
            capacity = max(_MIN_CAPACITY, 2 * self._length)
            self._buffer = old.new_empty(*entries.shape[:3], capacity, entries.size(4))
            self._buffer[:, :, :, :start] = old[:, :, :, :start]
        self._buffer[:, :, :, start : self._length] = entries

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B × H, P, D/H]; views."""
        keys, values = self._buffer[:, :, :, : self._length].flatten(0, 1).unbind(1)
        return keys, values

    def keep(self, sentences: Tensor, moved: Tensor) -> None:
        """Drops all sentences except `sentences` [B'] int64; copies only the rows that change, `moved` [M] int64."""
        rows = self._buffer.index_select(0, sentences.index_select(0, moved))
        self._buffer = self._buffer.index_copy_(0, moved, rows)[: sentences.size(0)]


@dataclass
class LayerCache:
    """Self-attention cache (target so far) and cross-attention cache (source) of one decoder layer."""

    target: KVCache
    source: KVCache

    def keep(self, sentences: Tensor, moved: Tensor) -> None:
        """See `KVCache.keep`."""
        self.target.keep(sentences, moved)
        self.source.keep(sentences, moved)


class DecodingLayer:
    """A decoder layer with prepacked weights.

    Args:
        layer: the layer to run.
        dtype: dtype of the matrix products.
    """

    def __init__(self, layer: DecoderLayer, dtype: torch.dtype) -> None:
        self_attn, cross_attn, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        self.layer, self.num_heads, self.scale = layer, self_attn.num_heads, self_attn.scale
        # In bfloat16 the CPU compiles one kernel per number of entries, which takes longer than such small products.
        self.attention_dtype = torch.float32 if self_attn.q_proj.weight.device.type == "cpu" else dtype
        self.self_qkv = _pack(self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, dtype=dtype)
        self.self_out = _pack(self_attn.out_proj, dtype=dtype)
        self.cross_q = _pack(cross_attn.q_proj, dtype=dtype)
        self.cross_kv = _pack(cross_attn.k_proj, cross_attn.v_proj, dtype=dtype)
        self.cross_out = _pack(cross_attn.out_proj, dtype=dtype)
        self.fc1, self.fc2 = _pack(feed_forward.fc1, dtype=dtype), _pack(feed_forward.fc2, dtype=dtype)

    def start(self, states: Tensor) -> LayerCache:
        """The cache before the first target position, from encoder states [B, S, D]."""
        source = self._split(self.cross_kv(states), 2).permute(0, 3, 2, 1, 4).to(self.attention_dtype).contiguous()
        return LayerCache(target=KVCache(source[:, :, :, :0]), source=KVCache(source))

    def step(self, x: Tensor, cache: LayerCache, beam_mask: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Computes one position of each row.

        Args:
            x: [B, K, D].
            cache: the keys and values of the position are appended to it.
            beam_mask: additive mask of the target entries [B × H, K, P + K], the new entries last.
            source_mask: additive mask of the source positions [B × H, K, S].

        Returns:
            [B, K, D], and the cross-attention weights [B × H, K, S] float32.
        """
        layer = self.layer
        qkv = self._split(self.self_qkv(layer.self_attn_residual.block_input(x)), 3)
        cache.target.append(qkv[:, :, 1:].permute(0, 3, 2, 1, 4))
        y, _ = self._attend(qkv[:, :, 0], cache.target, beam_mask)
        x = layer.self_attn_residual.add(x, self.self_out(y))
        q = self._split(self.cross_q(layer.encoder_attn_residual.block_input(x)), 1)
        y, weights = self._attend(q[:, :, 0], cache.source, source_mask)
        x = layer.encoder_attn_residual.add(x, self.cross_out(y))
        relu = layer.feed_forward.relu
        inner = self.fc1(layer.feed_forward_residual.block_input(x), relu=relu)
        inner = inner if relu else F.gelu(inner)
        return layer.feed_forward_residual.add(x, self.fc2(inner)), weights

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """View of `x` [B, K, parts × D] as [B, K, parts, H, D/H]."""
        return x.view(*x.shape[:2], parts, self.num_heads, x.size(2) // (parts * self.num_heads))

    def _attend(self, q: Tensor, cache: KVCache, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attention softmax(scale · q kᵀ + mask) v: Vaswani et al. (2017, eq. 1, arXiv:1706.03762).

        Args:
            q: [B, K, H, D/H].
            cache: P keys and values.
            mask: additive mask [B × H, K, P].

        Returns:
            [B, K, D], and the attention weights [B × H, K, P] float32.
        """
        keys, values = cache.read()
        queries = q.transpose(1, 2).flatten(0, 1).to(keys.dtype)
        with torch.autocast(q.device.type, enabled=False):
            scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=self.scale)
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
            y = torch.bmm(weights.to(values.dtype), values).view(-1, self.num_heads, *q.shape[1::2])
        return y.transpose(1, 2).flatten(2), weights


def _pack(*layers: nn.Linear, dtype: torch.dtype) -> PackedLinear:
    """Packs linear layers that read the same input into one."""
    return PackedLinear([layer.weight for layer in layers], [layer.bias for layer in layers], dtype=dtype)
