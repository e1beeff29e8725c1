"""Attention scores position by position: one query per sentence, with a hand-written backward pass.

`IncrementalScorer`s are the steps of a loop over time that computes its own backward pass
(see `seq2seq.models.kernels.input_feeding`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.models.kernels.dtypes import wide_dtype
from seq2seq.models.kernels.selection import not_compiled


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


class IncrementalForm(NamedTuple):
    """How a loop over time computes an attention score.

    Attributes:
        scorer: makes an `IncrementalScorer` from the projected keys and `weights`.
        query_weight: [A, D], projects the states to the queries of the scorer; None if it takes the states.
        weights: of the scorer, besides the keys.
    """

    scorer: Callable[..., IncrementalScorer]
    query_weight: Tensor | None = None
    weights: tuple[Tensor, ...] = ()


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


@not_compiled
def additive_scores(query: Tensor, keys: Tensor, coverage: Tensor | None, v: Tensor, w: Tensor | None) -> Tensor:
    """Scores v·tanh(q + k + w c), [B, T, S] wide, of queries [B, T, A], keys [B, S, A] and coverage c [B, T, S].

    One position at a time, so that [B, T, S, A] is never in memory.
    """
    return _AdditiveScores.apply(query, keys, coverage, v, w)


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
