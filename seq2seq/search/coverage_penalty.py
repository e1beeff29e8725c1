"""How much of a source its hypotheses have attended to, and what they pay for the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary

# A softmax underflows to zero, whose logarithm would rule a hypothesis out for one word. What got less attention
# than this in all counts as having got this: 23 nats a position at most.
_FLOOR = 1e-10


class Coverage:
    """The coverage penalty of each live beam: Wu et al. (2016, section 7, eq. 14, arXiv:1609.08144).

    cp(X; Y) = β Σ_i log(min(Σ_j a_ij, 1)), a_ij being the attention on source token i while target token j was
    chosen, the end of sentence among the j. It is never above 0, and a hypothesis that goes on only gains. Differs
    from the paper in two things: the source's end of sentence, which says nothing that could be left out, is none
    of the i (nor is padding), and no sum counts as less than 1e-10.

    Args:
        weight: β, above 0.
        src: [B, S] int64, the sources.
        vocabulary: the special ids.
    """

    def __init__(self, weight: float, src: Tensor, vocabulary: Vocabulary) -> None:
        self.weight = weight
        self.words = (src != vocabulary.pad_id) & (src != vocabulary.eos_id)  # [B, S]
        self._sums: Tensor | None = None  # [b, K, S] float32

    def add(self, attention: Tensor | None) -> Tensor:
        """Takes in a step's attention [b × K, S] and returns the penalties [b, K] of what ends at this step."""
        assert attention is not None, "a decoder gives the attention it was asked for"
        latest = attention.view(self.words.size(0), -1, attention.size(1))
        self._sums = latest if self._sums is None else self._sums + latest
        logs = self._sums.clamp(_FLOOR, 1.0).log()
        return self.weight * torch.where(self.words.unsqueeze(1), logs, 0.0).sum(dim=2)

    def reorder(self, parents: Tensor) -> None:
        """New beam k of sentence b goes on from its old beam `parents[b, k]` ([b, K] int64)."""
        assert self._sums is not None
        self._sums = self._sums.gather(1, parents.unsqueeze(2).expand(-1, -1, self._sums.size(2)))

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences but these (indices into the current batch)."""
        assert self._sums is not None
        self.words = self.words.index_select(0, sentences)
        self._sums = self._sums.index_select(0, sentences)
