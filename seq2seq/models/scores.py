"""Scores of one head: how well a decoder state fits each encoder state."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DotScore(nn.Module):
    """Scores s · q·k of one head: Luong et al. (2015, eq. 8 "dot", arXiv:1508.04025).

    Args:
        scale: s, 1 or one over the square root of the size (Vaswani et al., 2017, eq. 1).
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def keys(self, states: Tensor) -> Tensor:
        """What queries are compared with, computed once a source: the encoder states themselves."""
        return states

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries [B, T, D] against keys [B, S, D]: [B, T, S]."""
        return (query * self.scale) @ keys.transpose(1, 2)


class GeneralScore(nn.Module):
    """Scores q·W h: Luong et al. (2015, eq. 8 "general", arXiv:1508.04025)."""

    def __init__(self, query_size: int, state_size: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(state_size, query_size, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """W h of encoder states [B, S, E]: [B, S, D]."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries [B, T, D] against keys [B, S, D]: [B, T, S]."""
        return query @ keys.transpose(1, 2)


class AdditiveScore(nn.Module):
    """Scores v·tanh(W q + U h): Bahdanau et al. (2015, section 3.1 and A.1.2, arXiv:1409.0473).

    With `coverage`, v·tanh(W q + U h + w c), c being the attention that a position has had so far: See et al. (2017,
    eq. 11, arXiv:1704.04368).
    """

    def __init__(self, query_size: int, state_size: int, size: int, *, coverage: bool = False) -> None:
        super().__init__()
        self.q_proj = nn.Linear(query_size, size, bias=False)
        self.k_proj = nn.Linear(state_size, size)
        self.v = nn.Linear(size, 1, bias=False)
        self.coverage = nn.Parameter(torch.zeros(size)) if coverage else None

    def keys(self, states: Tensor) -> Tensor:
        """U h of encoder states [B, S, E]: [B, S, A]."""
        y: Tensor = self.k_proj(states)
        return y

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Queries [B, T, D] against keys [B, S, A]: [B, T, S]; `coverage` [B, T, S] where there is such an input."""
        sums = self.q_proj(query).unsqueeze(2) + keys.unsqueeze(1)  # [B, T, S, A]
        if self.coverage is not None and coverage is not None:
            sums = torch.addcmul(sums, coverage.unsqueeze(-1).to(sums.dtype), self.coverage.to(sums.dtype))
        y: Tensor = self.v(torch.tanh(sums)).squeeze(-1)
        return y
