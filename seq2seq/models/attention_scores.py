"""Single-head attention scores between decoder states (queries) and encoder states (keys)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from seq2seq.models.kernels.attention_scores import AdditiveScorer, DotScorer, IncrementalForm, additive_scores
from seq2seq.models.kernels.selection import kernels_apply


class AttentionScore(nn.Module, ABC):
    """A score function as a module of the model.

    A new one defines `project_keys` and `forward`; autograd does the rest. `incremental` is for speed.
    """

    @abstractmethod
    def project_keys(self, states: Tensor) -> Tensor:
        """Keys [B, S, *] of encoder states [B, S, E]; computed once per source."""

    @abstractmethod
    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Scores [B, T, S] of queries [B, T, D] and projected keys; `coverage` is [B, T, S] if the model has it."""

    def incremental(self) -> IncrementalForm | None:
        """The hand-written form, if there is one, for loops over time (see `seq2seq.models.kernels.input_feeding`)."""
        return None


class _ProductAttentionScore(AttentionScore):
    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """See `AttentionScore.forward`."""
        return query @ keys.transpose(1, 2)

    def incremental(self) -> IncrementalForm:
        """See `AttentionScore.incremental`."""
        return IncrementalForm(DotScorer)


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
        return self.k_proj(states)


class AdditiveAttentionScore(AttentionScore):
    """Scores v·tanh(W q + U h): Bahdanau et al. (2015, section 3.1 and A.1.2, arXiv:1409.0473).

    With `coverage`, v·tanh(W q + U h + w c), where c is the sum of the attention that a source position has received
    so far: See et al. (2017, eq. 11, arXiv:1704.04368).
    """

    def __init__(self, query_size: int, state_size: int, size: int, *, coverage: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(query_size, size, bias=False)
        self.k_proj = nn.Linear(state_size, size)
        self.v = nn.Linear(size, 1, bias=False)
        self.coverage = nn.Parameter(torch.zeros(size)) if coverage else None

    def project_keys(self, states: Tensor) -> Tensor:
        """U h of encoder states [B, S, E]: [B, S, A]."""
        return self.k_proj(states)

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """See `AttentionScore.forward`."""
        q, v, w = self.q_proj(query), self.v.weight.squeeze(0), self.coverage
        if kernels_apply(q):  # the same position by position, so that [B, T, S, A] is never in memory
            return additive_scores(q, keys, coverage, v, w)
        sums = q.unsqueeze(2) + keys.unsqueeze(1)  # W q + U h, [B, T, S, A]
        if w is not None and coverage is not None:
            sums = sums + w * coverage.unsqueeze(-1)
        return torch.tanh(sums) @ v  # [B, T, S]

    def incremental(self) -> IncrementalForm:
        """See `AttentionScore.incremental`."""
        v = self.v.weight.squeeze(0)
        weights = (v,) if self.coverage is None else (v, self.coverage)
        return IncrementalForm(AdditiveScorer, self.q_proj.weight, weights)
