"""The coverage penalty: ranks hypotheses lower that attended too little to some source tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary

# A softmax can underflow to zero, whose logarithm would rule out a hypothesis for a single word. Smaller sums count as
# this: at most 23 nats per source token.
_FLOOR = 1e-10


class CoveragePenalty:
    """The coverage penalty of each active beam: Wu et al. (2016, section 7, eq. 14, arXiv:1609.08144).

    cp(X; Y) = β Σ_i log(min(Σ_j a_ij, 1)), where a_ij is the attention on source token i when target token j was
    chosen, with the end of sentence among the j. It is never above 0 and never falls as a hypothesis grows. Differs
    from the paper in two ways: i excludes the source's end of sentence, which carries no content (and padding), and
    sums below 1e-10 count as 1e-10.

    Args:
        weight: β, above 0.
        src: [B, S] int64, the sources.
        vocabulary: the special ids.
    """

    def __init__(self, weight: float, src: Tensor, vocabulary: Vocabulary) -> None:
        self.weight = weight
        self.mask = (src != vocabulary.pad_id) & (src != vocabulary.eos_id)  # [B, S]
        self._sums: Tensor | None = None  # [b, K, S] float32

    def add(self, attention: Tensor | None) -> Tensor:
        """Adds a step's attention [b × K, S]; returns the penalties [b, K] of hypotheses that end at this step."""
        assert attention is not None, "the decoder must return the attention it was asked for"
        latest = attention.view(self.mask.size(0), -1, attention.size(1))
        self._sums = latest if self._sums is None else self._sums + latest
        logs = self._sums.clamp(_FLOOR, 1.0).log()
        return self.weight * torch.where(self.mask.unsqueeze(1), logs, 0.0).sum(dim=2)

    def reorder(self, parents: Tensor) -> None:
        """Makes beam k of sentence b continue its previous beam `parents[b, k]` ([b, K] int64)."""
        assert self._sums is not None
        self._sums = self._sums.gather(1, parents.unsqueeze(2).expand(-1, -1, self._sums.size(2)))

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences except these (indices into the current batch)."""
        assert self._sums is not None
        self.mask = self.mask.index_select(0, sentences)
        self._sums = self._sums.index_select(0, sentences)
