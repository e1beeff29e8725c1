"""Single-head attention scores between decoder states (queries) and encoder states (keys).

An `AttentionScore` is the module that scores all queries of a batch. Its `IncrementalScorer` scores one query per
sentence at a time and defines its own backward pass, for loops over time (see `seq2seq.models.input_feeding`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2seq.models.linear import wide_dtype


class IncrementalScorer(ABC):
    """Scores one query per sentence against keys [B, S, *], position by position. Call it with autograd disabled.

    The backward pass accumulates the gradients of the keys and weights, which all positions share.
    """

    @abstractmethod
    def forward(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        """Scores [B, S], wide (at least float32), of queries [B, *]; `coverage` [B, S] is the sum of past attention."""

    @abstractmethod
    def start_backward(self) -> None:
        """Prepares the gradients; call it before the first `backward`."""

    @abstractmethod
    def backward(self, query: Tensor, coverage: Tensor | None, grad_scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of `query` and, if the scores depend on it, of `coverage`; `grad_scores` is [B, S], wide."""

    @abstractmethod
    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of the keys and of the scorer's weights, after the last `backward`."""


class DotScorer(IncrementalScorer):
    """Scores q·k of queries [B, D] and keys [B, S, D]."""

    def __init__(self, keys: Tensor) -> None:
        self._keys = keys

    def forward(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        """See `IncrementalScorer.forward`."""
        return torch.bmm(self._keys, query.unsqueeze(2)).squeeze(2).to(wide_dtype(query.dtype))

    def start_backward(self) -> None:
        """See `IncrementalScorer.start_backward`."""
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def backward(self, query: Tensor, coverage: Tensor | None, grad_scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `IncrementalScorer.backward`."""
        grad_scores = grad_scores.to(query.dtype)
        self._pairs.append((grad_scores, query))
        return torch.bmm(grad_scores.unsqueeze(1), self._keys).squeeze(1), None

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradient of the keys [B, S, D], as one product over all positions."""
        grads, queries = zip(*self._pairs, strict=True)
        return (torch.bmm(torch.stack(grads, dim=2), torch.stack(queries, dim=1)),)


class AdditiveScorer(IncrementalScorer):
    """Scores v·tanh(q + k + w c) of queries [B, A], keys [B, S, A] and coverage [B, S].

    The backward pass recomputes tanh in the same buffer, so that memory does not grow with the number of positions.

    Args:
        keys: k.
        v: [A].
        w: [A]; None without coverage.
    """

    def __init__(self, keys: Tensor, v: Tensor, w: Tensor | None = None) -> None:
        wide = wide_dtype(keys.dtype)
        self._keys, self._v, self._w = keys.to(wide), v.to(wide), None if w is None else w.to(wide)
        self._buffer = torch.empty_like(self._keys)

    def forward(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        """See `IncrementalScorer.forward`."""
        return torch.mv(self._tanh(query, coverage).flatten(0, 1), self._v).view(self._keys.shape[:2])

    def _tanh(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        sums = torch.add(self._keys, query.to(self._keys.dtype).unsqueeze(1), out=self._buffer)
        if self._w is not None and coverage is not None:
            sums.addcmul_(coverage.unsqueeze(-1), self._w)
        return sums.tanh_()

    def start_backward(self) -> None:
        """See `IncrementalScorer.start_backward`."""
        self._grad_keys, self._grad_v = torch.zeros_like(self._keys), torch.zeros_like(self._v)
        self._grad_w = torch.zeros_like(self._v)
        self._one = self._v.new_ones(())

    def backward(self, query: Tensor, coverage: Tensor | None, grad_scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `IncrementalScorer.backward`."""
        y = self._tanh(query, coverage)
        flat = y.flatten(0, 1)
        self._grad_v.addmv_(flat.t(), grad_scores.flatten())
        grad_tanh = torch.addcmul(self._one, y, y, value=-1, out=y)
        self._grad_keys.addcmul_(grad_scores.unsqueeze(-1), grad_tanh)  # the factor v follows in `gradients`
        grad_query = self._v * torch.bmm(grad_scores.unsqueeze(1), grad_tanh).squeeze(1)
        if self._w is None or coverage is None:
            return grad_query, None
        self._grad_w.addmv_(flat.t(), (grad_scores * coverage).flatten())
        return grad_query, grad_scores * torch.mv(flat, self._v * self._w).view_as(grad_scores)

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of the keys [B, S, A], of v [A] and, with coverage, of w [A]."""
        grad_w = () if self._w is None else (self._grad_w * self._v,)
        return self._grad_keys.mul_(self._v), self._grad_v, *grad_w


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
        scores: Tensor = _additive_scores(self.q_proj(query), keys, coverage, v, w[0] if w else None)
        return scores

    def query_weight(self) -> Tensor | None:
        """W [A, D]."""
        return self.q_proj.weight

    def scorer_weights(self) -> tuple[Tensor, ...]:
        """The vector v [A] and, with coverage, the vector w [A]."""
        v = self.v.weight.squeeze(0)
        return (v,) if self.coverage is None else (v, self.coverage)


# Not compiled: torch.compile would unroll the loop over time into one large graph per length.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _additive_scores(query: Tensor, keys: Tensor, coverage: Tensor | None, v: Tensor, w: Tensor | None) -> Tensor:
    scores: Tensor = _AdditiveScores.apply(query, keys, coverage, v, w)  # type: ignore[no-untyped-call]
    return scores


class _AdditiveScores(torch.autograd.Function):
    """`AdditiveScorer` of queries [B, T, A] and coverage [B, T, S]; one position at a time, to save memory."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, coverage: Tensor | None, v: Tensor, w: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, keys, coverage, v, w)
        with torch.autocast(keys.device.type, enabled=False):
            scorer = AdditiveScorer(keys, v, w)
            positions = zip(query.unbind(1), _unbind(coverage, query.size(1)), strict=True)
            return torch.stack([scorer.forward(*position) for position in positions], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, coverage, v, w = ctx.saved_tensors
        scorer = AdditiveScorer(keys, v, w)
        scorer.start_backward()
        positions = zip(query.unbind(1), _unbind(coverage, query.size(1)), grad_scores.unbind(1), strict=True)
        grads = [scorer.backward(*position) for position in positions]
        grad_query = torch.stack([grad for grad, _ in grads], dim=1).to(query.dtype)
        grad_coverage = None if coverage is None else torch.stack([c for _, c in grads if c is not None], dim=1)
        grad_keys, grad_v, *grad_w = scorer.gradients()
        return grad_query, grad_keys.to(keys.dtype), grad_coverage, grad_v.to(v.dtype), grad_w[0] if grad_w else None


def _unbind(coverage: Tensor | None, steps: int) -> list[Tensor | None]:
    return [None] * steps if coverage is None else list(coverage.unbind(1))
