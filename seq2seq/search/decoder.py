"""What the search drives: one step of next-token log-probabilities for all rows at once.

The search knows only `Decoder`; `ModelDecoder` implements it for one model or an ensemble, a test may hand in
a lookup table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from seq2seq.models.base import Seq2Seq


class Decoder(Protocol):
    """N = B × K rows, the beams of a sentence side by side; K is 1 (or the samples' number) at the start."""

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities [N, V] float32 of the next token after one more token a row (`tokens` [N] int64).

        The caller may write into the result.
        """

    def reorder(self, parents: Tensor) -> None:
        """New beam k of sentence b goes on from its old beam `parents[b, k]` ([B, K] int64)."""

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences but these ([B'] int64, indices into the current batch)."""


class ModelDecoder:
    """Runs one or several models side by side.

    An ensemble's probability is the mean of its models' probabilities.
    """

    def __init__(self, models: Sequence[Seq2Seq], src: Tensor, *, width: int = 1) -> None:
        self.models = models
        self.states = [model.start(model.encode(src, model.source_mask(src)), width=width) for model in models]

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`."""
        each = [
            model.output.log_probs(model.step(tokens, state))
            for model, state in zip(self.models, self.states, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        return torch.stack(each).logsumexp(0) - math.log(len(each))  # [M, N, V] -> [N, V]

    def reorder(self, parents: Tensor) -> None:
        """See `Decoder.reorder`."""
        for state in self.states:
            state.reorder(parents)

    def keep(self, sentences: Tensor) -> None:
        """See `Decoder.keep`."""
        for state in self.states:
            state.keep(sentences)


def forced_attention(models: Sequence[Seq2Seq], src: Tensor, tgt_in: Tensor) -> Tensor:
    """Attention [B, T, S] over the sources while the models read given targets, averaged over the models.

    Reading the finished hypotheses once more costs one teacher-forced pass, and spares the search the weights
    of all those it drops on the way.

    Args:
        models: the ensemble.
        src: [B, S] int64.
        tgt_in: [B, T] int64, beginning-of-sentence first; padding may be any id.
    """
    total: Tensor | None = None
    for model in models:
        memory = model.encode(src, model.source_mask(src))
        attention = model.decode(tgt_in, memory, need_attention=True).attention
        assert attention is not None, "a model returns the attention it is asked for"
        total = attention if total is None else total + attention
    assert total is not None, "an ensemble has at least one model"
    return total / len(models)
