"""Where a Transformer decoder stands in a target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.models.base import State, beam_rows
from seq2seq.models.copying import SourceTokens
from seq2seq.models.transformer_decoding import DecodingLayer, LayerCache


@dataclass
class TransformerState(State):
    """Where a Transformer decoder stands.

    Attributes:
        layers: the decoder's.
        caches: theirs. Each row leaves an entry at each step, so a sentence has P = Σ K of them.
        ancestry: [N, P], 0 at the entries that a row, or one it goes on from, has left, -inf at others.
        padding: [B, S], 0 at the tokens of the sources, -inf at padding.
        mask: the same, [B, S] bool.
        tokens: what may be copied, [B, ...]; None without copying.
        copy_keys: [B, S, D] of the copy head; None without one.
        position: how many target tokens were read.
    """

    layers: list[DecodingLayer]
    caches: list[LayerCache]
    ancestry: Tensor
    padding: Tensor
    mask: Tensor
    tokens: SourceTokens | None
    copy_keys: Tensor | None
    width: int
    position: int = 0

    def advance(self) -> None:
        """Counts one more position: a row sees its own new entry and not those of its siblings."""
        others = torch.full((self.width, self.width), float("-inf"), device=self.mask.device).fill_diagonal_(0.0)
        latest = others.to(self.ancestry.dtype).repeat(self.mask.size(0), 1)
        self.ancestry = torch.cat([self.ancestry, latest], dim=1)
        self.position += 1

    def biases(self, heads: int) -> tuple[Tensor, Tensor]:
        """What is added to the scores of `heads` heads: `ancestry` [B × H, K, P] and `padding` [B × H, K, S]."""
        shape = (self.mask.size(0), heads, self.width, -1)
        ancestry = self.ancestry.view(shape[0], 1, self.width, self.ancestry.size(1))
        return ancestry.expand(shape).flatten(0, 1), self.padding[:, None, None].expand(shape).flatten(0, 1)

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        self.ancestry = self.ancestry.index_select(0, beam_rows(parents, self.width))
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        moved = (sentences != torch.arange(sentences.size(0), device=sentences.device)).nonzero().squeeze(1)
        for cache in self.caches:
            cache.keep(sentences, moved)
        beams = torch.arange(self.width, device=sentences.device)
        self.ancestry = self.ancestry.index_select(0, (sentences.unsqueeze(1) * self.width + beams).flatten())
        self.mask, self.padding = self.mask.index_select(0, sentences), self.padding.index_select(0, sentences)
        self.tokens = None if self.tokens is None else self.tokens.take(sentences)
        self.copy_keys = None if self.copy_keys is None else self.copy_keys.index_select(0, sentences)
