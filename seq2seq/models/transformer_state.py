"""State of incremental decoding with a Transformer.

Caches are never reordered: each step adds one entry per beam, and the beam mask says which entries belong to the
history of a beam.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.models.base import State, beam_rows
from seq2seq.models.copying import SourceTokens
from seq2seq.models.transformer_decoding import DecodingLayer, LayerCache


@dataclass
class TransformerState(State):
    """State of incremental decoding with a Transformer.

    Attributes:
        layers: the decoder layers, with weights packed for inference.
        caches: their key-value caches. Each step adds one entry per beam, so a sentence has P = Σ K entries, K being
            the width at each step.
        beam_mask: additive mask [N, P]: 0 at the entries of a row's own history, -inf at those of other beams.
        additive_source_mask: [B, S], 0 at source tokens, -inf at padding.
        source_mask: the same as [B, S] bool, True at tokens.
        source_tokens: the tokens that may be copied, [B, ...]; None without copying.
        copy_keys: keys [B, S, D] of the separate copy attention; None without one.
        position: number of target tokens read so far.
    """

    layers: list[DecodingLayer]
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
