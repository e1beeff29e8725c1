"""What the search drives: one step of next-token log-probabilities for all rows at once.

The search knows only `Decoder`; `ModelDecoder` implements it for one model or an ensemble, a test may hand in
a lookup table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seq2seq.models.base import Seq2Seq, compute_dtype


class Prediction(NamedTuple):
    """What a step says of the next token.

    Attributes:
        log_probs: [N, V] float32; the caller may write into it.
        attention: [N, S] float32, rows sum to one; None where the decoder was not asked for it.
    """

    log_probs: Tensor
    attention: Tensor | None = None


class Decoder(Protocol):
    """N = B × K rows, the beams of a sentence side by side; K is 1 (or the samples' number) at the start."""

    def step(self, tokens: Tensor) -> Prediction:
        """The next token's prediction after one more token a row (`tokens` [N] int64)."""

    def reorder(self, parents: Tensor) -> None:
        """New beam k of sentence b goes on from its old beam `parents[b, k]` ([B, K] int64)."""

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences but these ([B'] int64, indices into the current batch)."""


class ModelDecoder:
    """Runs one or several models side by side.

    An ensemble's probability is the mean of its models' probabilities, its attention that of their attentions.

    Args:
        models: one, or the ensemble.
        src: [B, S] int64, the sources.
        width: rows a sentence at the start.
        need_attention: whether predictions carry attention.
    """

    def __init__(self, models: Sequence[Seq2Seq], src: Tensor, *, width: int = 1, need_attention: bool = False) -> None:
        self.models = models
        self.need_attention = need_attention
        self.states, self.packed = [], []
        for model in models:
            memory = model.encode(src, model.source_mask(src))
            dtype = compute_dtype(memory.states)
            self.states.append(model.start(memory, width=width))
            self.packed.append(model.once(("output", dtype), partial(model.output.pack, dtype)))

    def step(self, tokens: Tensor) -> Prediction:
        """See `Decoder.step`."""
        each, weights = [], []
        for model, state, packed in zip(self.models, self.states, self.packed, strict=True):
            hidden = model.step(tokens, state, need_attention=self.need_attention)
            each.append(model.output.log_probs(hidden, packed))
            if self.need_attention:
                assert hidden.attention is not None, "a model returns the attention it is asked for"
                weights.append(hidden.attention.float())
        log_probs = each[0] if len(each) == 1 else torch.stack(each).logsumexp(0) - math.log(len(each))
        return Prediction(log_probs, torch.stack(weights).mean(0) if weights else None)

    def reorder(self, parents: Tensor) -> None:
        """See `Decoder.reorder`."""
        for state in self.states:
            state.reorder(parents)

    def keep(self, sentences: Tensor) -> None:
        """See `Decoder.keep`."""
        for state in self.states:
            state.keep(sentences)
