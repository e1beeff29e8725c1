"""The interface between search and models: next-token log-probabilities of all rows, one step at a time.

The search knows only `Decoder`. `ModelDecoder` implements it for one model or an ensemble; tests may pass a
lookup table instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seq2seq.models.base import PackedDecoder, Seq2Seq


class Prediction(NamedTuple):
    """Prediction of the next token.

    Attributes:
        log_probs: [N, V] float32; the caller may modify it in place.
        attention: [N, S] float32, each row sums to one; None unless the decoder was asked for it.
    """

    log_probs: Tensor
    attention: Tensor | None = None


class Decoder(Protocol):
    """Decodes N = B × K rows, the K beams of a sentence adjacent; at the start K is 1, or the number of samples."""

    def step(self, tokens: Tensor) -> Prediction:
        """Appends one token to each row (`tokens` [N] int64) and predicts the next one."""

    def reorder(self, parents: Tensor) -> None:
        """Makes beam k of sentence b continue its previous beam `parents[b, k]` ([B, K] int64)."""

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences except these ([B'] int64, indices into the current batch)."""


class ModelDecoder:
    """Runs one model, or several as an ensemble.

    An ensemble averages the probabilities and the attention of its models.

    Args:
        models: one model, or several for an ensemble.
        src: [B, S] int64, the sources.
        packed: the packed decoder of each model; None packs them.
        width: number of rows per sentence at the start.
        need_attention: whether predictions include attention.
    """

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        src: Tensor,
        *,
        packed: Sequence[PackedDecoder] | None = None,
        width: int = 1,
        need_attention: bool = False,
    ) -> None:
        self.models = models
        self.packed = [model.pack_decoder() for model in models] if packed is None else packed
        self.need_attention = need_attention
        self.states = [
            model.start(model.encode(src, model.source_mask(src)), decoder, width=width)
            for model, decoder in zip(models, self.packed, strict=True)
        ]

    def step(self, tokens: Tensor) -> Prediction:
        """See `Decoder.step`."""
        log_probs, attention = [], []
        for model, state, packed in zip(self.models, self.states, self.packed, strict=True):
            hidden = model.step(tokens, state, need_attention=self.need_attention)
            log_probs.append(model.output.log_probs(hidden, packed.output))
            if self.need_attention:
                assert hidden.attention is not None, "the model must return the attention it was asked for"
                attention.append(hidden.attention.float())
        mean = log_probs[0] if len(log_probs) == 1 else torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))
        return Prediction(mean, torch.stack(attention).mean(0) if attention else None)

    def reorder(self, parents: Tensor) -> None:
        """See `Decoder.reorder`."""
        for state in self.states:
            state.reorder(parents)

    def keep(self, sentences: Tensor) -> None:
        """See `Decoder.keep`."""
        for state in self.states:
            state.keep(sentences)
