"""Incremental decoding of the Transformer: what its decoder keeps from one position to the next.

Keys and values are written once and never reordered. The beams of a sentence are K queries over the cache entries of
all its beams, and an additive beam mask hides the entries that are not part of a beam's own history. Reordering beams
therefore copies only this small mask; attending over masked entries costs less than moving the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.models.base import PackedDecoder, State, beam_rows
from seq2seq.models.copying import SourceTokens
from seq2seq.models.kernels.dtypes import wide_dtype
from seq2seq.models.kernels.packed_linear import PackedLinear

_MIN_CAPACITY = 32  # entries


def pack(*layers: nn.Linear) -> PackedLinear:
    """Packs linear layers that read the same input into one."""
    return PackedLinear([layer.weight for layer in layers], [layer.bias for layer in layers])


class KVCache:
    """Keys and values of P entries per sentence, [B, H, 2, P, D/H], in a buffer that doubles when it is full.

    Args:
        entries: the initial entries, P = 0 or more.

    Attributes:
        dtype: of the entries; those that are added later are converted.
    """

    def __init__(self, entries: Tensor) -> None:
        # In bfloat16 the CPU compiles one kernel per number of entries, which takes longer than such small products.
        self.dtype = wide_dtype(entries.dtype) if entries.device.type == "cpu" else entries.dtype
        self._buffer, self._length = entries.to(self.dtype).contiguous(), entries.size(3)

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


def attend_to_cache(q: Tensor, cache: KVCache, mask: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attention softmax(scale · q kᵀ + mask) v: Vaswani et al. (2017, eq. 1, arXiv:1706.03762).

    Args:
        q: [B, H, K, D/H].
        cache: P keys and values.
        mask: additive mask [B × H, K, P], in the cache's dtype.
        scale: factor of the scores.

    Returns:
        [B, K, D], and the attention weights [B, H, K, P] float32.
    """
    keys, values = cache.read()
    queries = q.flatten(0, 1).to(keys.dtype)
    with torch.autocast(q.device.type, enabled=False):
        scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1, dtype=wide_dtype(scores.dtype))
        y = torch.bmm(weights.to(values.dtype), values)
    return y.view(q.shape).transpose(1, 2).flatten(2), weights.view(*q.shape[:2], *weights.shape[1:])


@dataclass
class LayerCache:
    """What one decoder layer keeps: self-attention cache (target so far) and cross-attention cache (source)."""

    target: KVCache
    source: KVCache

    def reorder(self, parents: Tensor) -> None:
        """Makes beam k of sentence b continue its beam `parents[b, k]` ([B, K] int64).

        Keys and values stay where they are: the beam mask tells whose they are. A layer that keeps a running state
        per beam [B, K, ...] selects its rows here.
        """

    def keep(self, sentences: Tensor, moved: Tensor) -> None:
        """See `KVCache.keep`."""
        self.target.keep(sentences, moved)
        self.source.keep(sentences, moved)


@dataclass
class PackedLayer:
    """The weights of a decoder layer: projections of self-attention and cross-attention, and the feed-forward block."""

    self_qkv: PackedLinear
    self_out: PackedLinear
    cross_q: PackedLinear
    cross_kv: PackedLinear
    cross_out: PackedLinear
    fc1: PackedLinear
    fc2: PackedLinear
    num_heads: int

    def start(self, states: Tensor) -> LayerCache:
        """The cache before the first target position, from encoder states [B, S, D]."""
        entries = self.split_heads(self.cross_kv(states), 2)
        return LayerCache(target=KVCache(entries[:, :, :, :0]), source=KVCache(entries))

    def split_heads(self, x: Tensor, parts: int) -> Tensor:
        """View of `x` [B, K, parts × D] as [B, H, parts, K, D/H]."""
        return x.view(*x.shape[:2], parts, self.num_heads, -1).permute(0, 3, 2, 1, 4)


@dataclass
class PackedTransformerDecoder(PackedDecoder):
    """See `PackedDecoder`."""

    layers: list[PackedLayer]


@dataclass
class TransformerState(State):
    """State of incremental decoding with a Transformer.

    Attributes:
        packed: the decoder's weights.
        caches: the caches of its layers. Each step adds one entry per beam, so a sentence has P = Σ K entries, K being
            the width at each step.
        beam_mask: additive mask [N, P]: 0 at the entries of a row's own history, -inf at those of other beams.
        additive_source_mask: [B, S], 0 at source tokens, -inf at padding.
        source_mask: the same as [B, S] bool, True at tokens.
        source_tokens: the tokens that may be copied, [B, ...]; None without copying.
        copy_keys: keys [B, S, D] of the separate copy attention; None without one.
        position: number of target tokens read so far.
    """

    packed: PackedTransformerDecoder
    caches: list[LayerCache]
    beam_mask: Tensor
    additive_source_mask: Tensor
    source_mask: Tensor
    source_tokens: SourceTokens | None
    copy_keys: Tensor | None
    width: int
    position: int = 0

    def advance(self) -> None:
        """Advances by one position: each row may attend to its own new entry, not to those of the other beams."""
        new_entries = torch.full((self.width, self.width), float("-inf"), device=self.source_mask.device)
        new_entries = new_entries.fill_diagonal_(0.0).to(self.beam_mask.dtype).repeat(self.source_mask.size(0), 1)
        self.beam_mask = torch.cat([self.beam_mask, new_entries], dim=1)
        self.position += 1

    def additive_masks(self, num_heads: int) -> tuple[Tensor, Tensor]:
        """Beam mask [B × H, K, P] and source mask [B × H, K, S], expanded to all heads."""
        shape = (self.source_mask.size(0), num_heads, self.width, -1)
        beam_mask = self.beam_mask.view(shape[0], 1, self.width, self.beam_mask.size(1))
        source_mask = self.additive_source_mask[:, None, None]
        return beam_mask.expand(shape).flatten(0, 1), source_mask.expand(shape).flatten(0, 1)

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        for cache in self.caches:
            cache.reorder(parents)
        self.beam_mask = self.beam_mask.index_select(0, beam_rows(parents, self.width))
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        changed_rows = (sentences != torch.arange(sentences.size(0), device=sentences.device)).nonzero().squeeze(1)
        for cache in self.caches:
            cache.keep(sentences, changed_rows)
        beams = torch.arange(self.width, device=sentences.device)
        self.beam_mask = self.beam_mask.index_select(0, (sentences.unsqueeze(1) * self.width + beams).flatten())
        self.source_mask = self.source_mask.index_select(0, sentences)
        self.additive_source_mask = self.additive_source_mask.index_select(0, sentences)
        self.source_tokens = None if self.source_tokens is None else self.source_tokens.select(sentences)
        self.copy_keys = None if self.copy_keys is None else self.copy_keys.index_select(0, sentences)
