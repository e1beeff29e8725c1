"""Single-head attention scores between decoder states (queries) and encoder states (keys).

An `AttentionScore` is the module that scores all queries of a batch. Its `IncrementalScorer` scores one query per
sentence at a time and defines its own backward pass, for loops over time (see `seq2seq.models.kernels.input_feeding`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seq2seq.models.kernels.attention_scores import AdditiveScorer, DotScorer, IncrementalScorer, additive_scores
from seq2seq.models.kernels.linear import wide_dtype


class AttentionScore(nn.Module, ABC):
    """A score function as a module of the model.

    Attributes:
        scorer_class: its `IncrementalScorer`, constructed from the projected keys and `scorer_weights()`.
    """

    scorer_class: Callable[..., IncrementalScorer]

    @abstractmethod
    def project_keys(self, states: Tensor) -> Tensor:
        """Keys [B, S, *] of encoder states [B, S, E]; computed once per source."""

    @abstractmethod
    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Scores [B, T, S], wide, of queries [B, T, D] and projected keys; `coverage` is [B, T, S] if used."""

    def query_weight(self) -> Tensor | None:
        """Weight [A, D] that projects the queries for the scorer; None if queries are used as they are."""
        return None

    def scorer_weights(self) -> tuple[Tensor, ...]:
        """Weights that the scorer takes besides the keys."""
        return ()


class _ProductAttentionScore(AttentionScore):
    scorer_class = DotScorer

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """See `AttentionScore.forward`."""
        scores = query @ keys.transpose(1, 2)
        return scores.to(wide_dtype(scores.dtype))


class DotAttentionScore(_ProductAttentionScore):
    """Scores q·(s h): Luong et al. (2015, section 3.1 "dot", arXiv:1508.04025).

    Args:
        scale: s, either 1 or 1 / sqrt(D) (Vaswani et al., 2017, eq. 1).
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def project_keys(self, states: Tensor) -> Tensor:
        """Encoder states [B, S, D] times s."""
        return states * self.scale


class GeneralAttentionScore(_ProductAttentionScore):
    """Scores q·W h: Luong et al. (2015, section 3.1 "general", arXiv:1508.04025)."""

    def __init__(self, query_size: int, state_size: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(state_size, query_size, bias=False)

    def project_keys(self, states: Tensor) -> Tensor:
        """W h of encoder states [B, S, E]: [B, S, D]."""
        y: Tensor = self.k_proj(states)
        return y


class AdditiveAttentionScore(AttentionScore):
    """Scores v·tanh(W q + U h): Bahdanau et al. (2015, section 3.1 and A.1.2, arXiv:1409.0473).

    With `coverage`, v·tanh(W q + U h + w c), where c is the sum of the attention that a source position has received
    so far: See et al. (2017, eq. 11, arXiv:1704.04368).
    """

    scorer_class = AdditiveScorer

    def __init__(self, query_size: int, state_size: int, size: int, *, coverage: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(query_size, size, bias=False)
        self.k_proj = nn.Linear(state_size, size)
        self.v = nn.Linear(size, 1, bias=False)
        self.coverage = nn.Parameter(torch.zeros(size)) if coverage else None

    def project_keys(self, states: Tensor) -> Tensor:
        """U h of encoder states [B, S, E]: [B, S, A]."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """See `AttentionScore.forward`."""
        v, *w = self.scorer_weights()
        scores: Tensor = additive_scores(self.q_proj(query), keys, coverage, v, w[0] if w else None)
        return scores

    def query_weight(self) -> Tensor | None:
        """W [A, D]."""
        return self.q_proj.weight

    def scorer_weights(self) -> tuple[Tensor, ...]:
        """The vector v [A] and, with coverage, the vector w [A]."""
        v = self.v.weight.squeeze(0)
        return (v,) if self.coverage is None else (v, self.coverage)
