"""Where a Transformer decoder stands in a target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.models.base import State, beam_rows
from seq2seq.models.copying import SourceTokens


@dataclass
class LayerCache:
    """One decoder layer's keys and values.

    Attributes:
        keys, values: of the target so far, [N, H, t, D/H]; None before the first token.
        memory_keys, memory_values: of the source, [B, H, S, D/H], once a sentence.
    """

    keys: Tensor | None
    values: Tensor | None
    memory_keys: Tensor
    memory_values: Tensor

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Appends keys and values [N, H, 1, D/H] of the next position; returns all so far."""
        if self.keys is None or self.values is None:
            self.keys, self.values = k, v
        else:
            self.keys, self.values = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        return self.keys, self.values

    def take(self, rows: Tensor) -> None:
        """Makes row i go on from the old row `rows[i]`."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


@dataclass
class TransformerState(State):
    """Where a Transformer decoder stands.

    Attributes:
        layers: their caches.
        mask: of the sources [B, S].
        tokens: what may be copied, [B, ...]; None without copying.
        copy_keys: [B, S, D] of the copy head; None without one.
        position: how many target tokens were read.
    """

    layers: list[LayerCache]
    mask: Tensor
    tokens: SourceTokens | None
    copy_keys: Tensor | None
    width: int
    position: int = 0

    def reorder(self, parents: Tensor) -> None:
        """See `State.reorder`."""
        rows = beam_rows(parents, self.width)
        for layer in self.layers:
            layer.take(rows)
        self.width = parents.size(1)

    def keep(self, sentences: Tensor) -> None:
        """See `State.keep`."""
        beams = torch.arange(self.width, device=sentences.device)
        rows = (sentences.unsqueeze(1) * self.width + beams).flatten()
        self.mask = self.mask.index_select(0, sentences)
        self.tokens = None if self.tokens is None else self.tokens.take(sentences)
        self.copy_keys = None if self.copy_keys is None else self.copy_keys.index_select(0, sentences)
        for layer in self.layers:
            layer.take(rows)
            layer.memory_keys = layer.memory_keys.index_select(0, sentences)
            layer.memory_values = layer.memory_values.index_select(0, sentences)
