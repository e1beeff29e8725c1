"""Scores of one head: how well a decoder state fits each encoder state.

Each is a module, which scores all queries of a batch, and has a `Comparison` of one query a sentence with the same keys
again and again, which a loop over time goes back through itself (see `seq2seq.models.input_feeding`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2seq.models.linear import wide_dtype


class Comparison(ABC):
    """One query a sentence against its keys [B, S, *], position after position. Call it without autograd.

    Gradients of what all positions share are summed up on the way back.
    """

    @abstractmethod
    def forward(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        """Scores [B, S], wide, of queries [B, *]; `coverage` [B, S] is what attention each key has had before."""

    @abstractmethod
    def start_backward(self) -> None:
        """Gets ready to go back."""

    @abstractmethod
    def backward(self, query: Tensor, coverage: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of `query`, and of `coverage` if that matters, from that of the scores [B, S], wide."""

    @abstractmethod
    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of the keys and of the score's own weights."""


class ProductComparison(Comparison):
    """Scores q·k of queries [B, D] and keys [B, S, D]."""

    def __init__(self, keys: Tensor) -> None:
        self._keys = keys

    def forward(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        """See `Comparison.forward`."""
        return torch.bmm(self._keys, query.unsqueeze(2)).squeeze(2).to(wide_dtype(query.dtype))

    def start_backward(self) -> None:
        """See `Comparison.start_backward`."""
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def backward(self, query: Tensor, coverage: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Comparison.backward`."""
        grad = grad.to(query.dtype)
        self._pairs.append((grad, query))
        return torch.bmm(grad.unsqueeze(1), self._keys).squeeze(1), None

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the keys [B, S, D], by one product over all positions."""
        grads, queries = zip(*self._pairs, strict=True)
        return (torch.bmm(torch.stack(grads, dim=2), torch.stack(queries, dim=1)),)


class SumComparison(Comparison):
    """Scores v·tanh(q + k + w c) of queries [B, A], keys [B, S, A] and coverage [B, S].

    tanh is computed anew on the way back, in the same memory: what is kept does not grow with the positions.

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
        """See `Comparison.forward`."""
        return torch.mv(self._tanh(query, coverage).flatten(0, 1), self._v).view(self._keys.shape[:2])

    def _tanh(self, query: Tensor, coverage: Tensor | None) -> Tensor:
        sums = torch.add(self._keys, query.to(self._keys.dtype).unsqueeze(1), out=self._buffer)
        if self._w is not None and coverage is not None:
            sums.addcmul_(coverage.unsqueeze(-1), self._w)
        return sums.tanh_()

    def start_backward(self) -> None:
        """See `Comparison.start_backward`."""
        self._grad_keys, self._grad_v = torch.zeros_like(self._keys), torch.zeros_like(self._v)
        self._grad_w = torch.zeros_like(self._v)
        self._one = self._v.new_ones(())

    def backward(self, query: Tensor, coverage: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Comparison.backward`."""
        y = self._tanh(query, coverage)
        flat = y.flatten(0, 1)
        self._grad_v.addmv_(flat.t(), grad.flatten())
        slope = torch.addcmul(self._one, y, y, value=-1, out=y)
        self._grad_keys.addcmul_(grad.unsqueeze(-1), slope)  # but for v, as in the sums below
        grad_query = self._v * torch.bmm(grad.unsqueeze(1), slope).squeeze(1)
        if self._w is None or coverage is None:
            return grad_query, None
        self._grad_w.addmv_(flat.t(), (grad * coverage).flatten())
        return grad_query, grad * torch.mv(flat, self._v * self._w).view_as(grad)

    def gradients(self) -> tuple[Tensor, ...]:
        """Of keys [B, S, A] and v [A], and of w [A] if there is one."""
        of_w = () if self._w is None else (self._grad_w * self._v,)
        return self._grad_keys.mul_(self._v), self._grad_v, *of_w


class Score(nn.Module, ABC):
    """A score as the model's part.

    Attributes:
        comparison: the class of its comparisons; they take the keys and `weights`.
    """

    comparison: Callable[..., Comparison]

    @abstractmethod
    def keys(self, states: Tensor) -> Tensor:
        """What queries are compared with, computed once a source, [B, S, *], of encoder states [B, S, E]."""

    @abstractmethod
    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Queries [B, T, D] against keys: [B, T, S] wide; `coverage` [B, T, S] where there is such an input."""

    def query_weight(self) -> Tensor | None:
        """What comparisons want queries multiplied by, [A, D]; None for nothing."""
        return None

    def weights(self) -> tuple[Tensor, ...]:
        """Weights of comparisons."""
        return ()


class _ProductScore(Score):
    comparison = ProductComparison

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """See `Score.forward`."""
        scores = query @ keys.transpose(1, 2)
        return scores.to(wide_dtype(scores.dtype))


class DotScore(_ProductScore):
    """Scores q·(s h) of one head: Luong et al. (2015, eq. 8 "dot", arXiv:1508.04025).

    Args:
        scale: s, 1 or one over the square root of the size (Vaswani et al., 2017, eq. 1).
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def keys(self, states: Tensor) -> Tensor:
        """Encoder states [B, S, D] times s."""
        return states * self.scale


class GeneralScore(_ProductScore):
    """Scores q·W h: Luong et al. (2015, eq. 8 "general", arXiv:1508.04025)."""

    def __init__(self, query_size: int, state_size: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(state_size, query_size, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """W h of encoder states [B, S, E]: [B, S, D]."""
        y: Tensor = self.k_proj(states)
        return y


class AdditiveScore(Score):
    """Scores v·tanh(W q + U h): Bahdanau et al. (2015, section 3.1 and A.1.2, arXiv:1409.0473).

    With `coverage`, v·tanh(W q + U h + w c), c being the attention that a position has had so far: See et al. (2017,
    eq. 11, arXiv:1704.04368).
    """

    comparison = SumComparison

    def __init__(self, query_size: int, state_size: int, size: int, *, coverage: bool) -> None:
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
        """See `Score.forward`."""
        v, *w = self.weights()
        scores: Tensor = _sum_scores(self.q_proj(query), keys, coverage, v, w[0] if w else None)
        return scores

    def query_weight(self) -> Tensor | None:
        """W."""
        return self.q_proj.weight

    def weights(self) -> tuple[Tensor, ...]:
        """Those named v [A] and, with coverage, w [A]."""
        v = self.v.weight.squeeze(0)
        return (v,) if self.coverage is None else (v, self.coverage)


# Not compiled: a loop over time, of which each length would be a large graph of its own.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _sum_scores(query: Tensor, keys: Tensor, coverage: Tensor | None, v: Tensor, w: Tensor | None) -> Tensor:
    scores: Tensor = _SumScores.apply(query, keys, coverage, v, w)  # type: ignore[no-untyped-call]
    return scores


class _SumScores(torch.autograd.Function):
    """`SumComparison` of queries [B, T, A] at given coverage [B, T, S], position by position for the memory's sake."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, coverage: Tensor | None, v: Tensor, w: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, keys, coverage, v, w)
        with torch.autocast(keys.device.type, enabled=False):
            comparison = SumComparison(keys, v, w)
            positions = zip(query.unbind(1), _unbind(coverage, query.size(1)), strict=True)
            return torch.stack([comparison.forward(*position) for position in positions], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, coverage, v, w = ctx.saved_tensors
        comparison = SumComparison(keys, v, w)
        comparison.start_backward()
        positions = zip(query.unbind(1), _unbind(coverage, query.size(1)), grad.unbind(1), strict=True)
        grads = [comparison.backward(*position) for position in positions]
        of_query = torch.stack([of_query for of_query, _ in grads], dim=1).to(query.dtype)
        of_coverage = None if coverage is None else torch.stack([c for _, c in grads if c is not None], dim=1)
        of_keys, of_v, *of_w = comparison.gradients()
        return of_query, of_keys.to(keys.dtype), of_coverage, of_v.to(v.dtype), of_w[0] if of_w else None


def _unbind(coverage: Tensor | None, count: int) -> list[Tensor | None]:
    return [None] * count if coverage is None else list(coverage.unbind(1))
