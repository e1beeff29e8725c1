"""The loop over time that input feeding forces on a decoder, with a backward pass of its own.

A position reads the attentional state of the one before it (Luong et al., 2015, section 3.3, arXiv:1508.04025), so
nothing that depends on that can be computed for all positions at once. But going back the loop by hand, only what one
position hands to the next is computed position by position: gradients of weights, and of what is attended to, are one
product over all positions, where autograd would add them up one position after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.models.linear import wide_dtype
from seq2seq.models.recurrent import GatedLayer
from seq2seq.models.scores import Comparison


class FedLayer(NamedTuple):
    """What a layer of the loop computes with; all in the compute dtype.

    Attributes:
        base: what the gates are known to receive before the loop [T, B, 3D].
        w: [3D, I], what they receive of the layer's input: for the first layer the last attentional state, for the
            others the state of the layer below.
        u: [3D, D], what they receive of the layer's last state.
        bias: of that, [3D].
        keep: what dropout multiplies the input by [T, B, I]; None without.
    """

    base: Tensor
    w: Tensor
    u: Tensor
    bias: Tensor
    keep: Tensor | None


class Attended(NamedTuple):
    """What the decoder attends to: prepared once a batch of sources, stored once a sentence.

    Attributes:
        keys: [B, S, *], as the score wants them.
        values: [B, S, D], the encoder states through the context half of W_c (see `attentional_state`).
        bias: [B, 1, S], 0 or -inf at padding.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor


class FedAttention(NamedTuple):
    """How the loop attends.

    Attributes:
        attended: to what.
        projection: [D, D], the state's half of W_c; followed by a score's projection of the query if it has one.
        compare: makes the comparison with the keys and `weights`.
        weights: of the score.
        coverage: whether it reads coverage.
    """

    attended: Attended
    projection: Tensor
    compare: Callable[..., Comparison]
    weights: tuple[Tensor, ...]
    coverage: bool


def attentional_state(scores: Tensor, of_state: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
    """tanh(W_c [c; h]), [B, T, D], and the weights [B, T, S] wide, behind c: Luong et al. (2015, eq. 5).

    W_c is kept as two halves, and its context half is applied to the encoder states beforehand: c is a weighted sum
    of them, so W c is the same sum of the products.

    Args:
        scores: of the queries h against the keys [B, T, S], wide.
        of_state: the state half applied to h, [B, T, D].
        attended: see there.
    """
    weights = torch.softmax(scores + attended.bias, dim=-1)
    context = weights.to(attended.values.dtype) @ attended.values
    wide = (context + of_state).to(weights.dtype)  # tanh of bfloat16 is slow
    return torch.tanh(wide).to(of_state.dtype), weights


# Not compiled: a loop over time, of which each length would be a large graph of its own.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_fed(layers: list[FedLayer], initial: Tensor, attention: FedAttention) -> tuple[Tensor, Tensor]:
    """Attentional states [B, T, D] and attention [B, T, S], wide, of all positions.

    Args:
        layers: from the input to the output.
        initial: their states before the first step [L, B, D].
        attention: see there.
    """
    attended = attention.attended
    settings = _Settings(attended.bias, attention, [layer.keep for layer in layers])
    tensors = [tensor for layer in layers for tensor in layer[:4]]
    found: tuple[Tensor, Tensor] = _FedLoop.apply(  # type: ignore[no-untyped-call]
        settings, initial, attended.keys, attended.values, attention.projection, *attention.weights, *tensors
    )
    return found


class _Settings(NamedTuple):
    """What `_FedLoop` needs besides what it gives gradients for."""

    bias: Tensor
    attention: FedAttention
    keeps: list[Tensor | None]


class _Layer:
    """A layer's steps, forth and back."""

    def __init__(self, initial: Tensor, layer: FedLayer):
        self._base, self._w, self._keep = layer.base, layer.w, layer.keep
        steps, rows, _ = layer.base.shape
        self._cell = GatedLayer(steps, initial.unsqueeze(0), layer.u.unsqueeze(0), layer.bias.unsqueeze(0))
        self._inputs = layer.w.new_empty(steps, rows, layer.w.size(1))

    def forward(self, t: int, x: Tensor) -> Tensor:
        """State [B, D] from input [B, I]."""
        x = self._inputs[t].copy_(x if self._keep is None else x * self._keep[t])
        return self._cell.forward(t, torch.addmm(self._base[t], x, self._w.t()).unsqueeze(0)).squeeze(0)

    def states(self) -> Tensor:
        """[T, B, D]."""
        return self._cell.states[0, 1:]

    def start_backward(self) -> None:
        self._cell.start_backward()

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """Gradient of the input [B, I] from that of the state, short of what the next step hands back."""
        of_input = torch.mm(self._cell.backward(t, grad.unsqueeze(0)).squeeze(0), self._w)
        return of_input if self._keep is None else of_input * self._keep[t]

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the initial state, and of base, w, u and bias."""
        of_base = self._cell.of_input.squeeze(0)
        of_w = torch.mm(of_base.flatten(0, 1).t(), self._inputs.flatten(0, 1))
        return self._cell.grad.squeeze(0), of_base, of_w, *(grad.squeeze(0) for grad in self._cell.gradients())


class _Attention:
    """The attention's steps, forth and back."""

    def __init__(self, comparison: Comparison, values: Tensor, projection: Tensor, settings: _Settings, steps: int):
        self._comparison, self._values, self._projection = comparison, values, projection
        self._attended = Attended(values, values, settings.bias)
        self._size = values.size(2)
        rows, length = values.shape[:2]
        wide = wide_dtype(values.dtype)
        self.features = values.new_empty(steps, rows, self._size)
        self.weights = values.new_empty(steps, rows, length, dtype=wide)
        self._of_state = values.new_empty(steps, rows, projection.size(0))
        self._coverage = None
        if settings.attention.coverage:
            self._coverage = values.new_zeros(steps + 1, rows, length, dtype=wide)

    def _query(self, t: int, state: Tensor) -> Tensor:
        return state if self._of_state.size(2) == self._size else self._of_state[t, :, self._size :]

    def forward(self, t: int, state: Tensor) -> Tensor:
        """Attentional state [B, D] from the state [B, D]."""
        of_state = torch.mm(state, self._projection.t(), out=self._of_state[t])
        coverage = None if self._coverage is None else self._coverage[t]
        scores = self._comparison.forward(self._query(t, state), coverage)
        feature, weights = attentional_state(
            scores.unsqueeze(1), of_state[:, : self._size].unsqueeze(1), self._attended
        )
        self.weights[t] = weights.squeeze(1)
        if self._coverage is not None:
            torch.add(self._coverage[t], self.weights[t], out=self._coverage[t + 1])
        return self.features[t].copy_(feature.squeeze(1))

    def start_backward(self) -> None:
        self._comparison.start_backward()
        self._grads = torch.empty_like(self._of_state)
        self._of_later = torch.zeros_like(self.weights[0])  # gradient of the coverage behind the position

    def backward(self, t: int, state: Tensor, grads: tuple[Tensor, Tensor]) -> Tensor:
        """Gradient of the state [B, D] from those of the attentional state [B, D] and the weights [B, S]."""
        wide, size = self.weights.dtype, self._size
        weights, (of_feature, of_weights) = self.weights[t], grads
        of_sum = self._grads[t, :, :size]
        of_sum.copy_(torch.ops.aten.tanh_backward(of_feature.to(wide), self.features[t].to(wide)))
        of_weights = of_weights + torch.bmm(self._values, of_sum.unsqueeze(2)).squeeze(2) + self._of_later
        of_scores = weights * (of_weights - (weights * of_weights).sum(dim=1, keepdim=True))
        coverage = None if self._coverage is None else self._coverage[t]
        of_query, of_coverage = self._comparison.backward(self._query(t, state), coverage, of_scores)
        if of_coverage is not None:
            self._of_later = self._of_later + of_coverage
        if self._of_state.size(2) == size:
            return torch.mm(self._grads[t], self._projection) + of_query
        self._grads[t, :, size:] = of_query
        return torch.mm(self._grads[t], self._projection)

    def gradients(self, states: Tensor) -> tuple[Tensor, ...]:
        """Of keys, values, projection and the score's weights, given the states [T, B, D]."""
        of_keys, *of_weights = self._comparison.gradients()
        weights = self.weights.permute(1, 2, 0).to(self._values.dtype)  # [B, S, T]
        of_values = torch.bmm(weights, self._grads[..., : self._size].transpose(0, 1))
        of_projection = torch.mm(self._grads.flatten(0, 1).t(), states.flatten(0, 1))
        return of_keys, of_values, of_projection, *of_weights


class _FedLoop(torch.autograd.Function):
    """`run_fed`."""

    @staticmethod
    def forward(
        ctx: Any, settings: _Settings, initial: Tensor, keys: Tensor, values: Tensor, projection: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        own = len(settings.attention.weights)
        with torch.autocast(keys.device.type, enabled=False):
            comparison = settings.attention.compare(keys, *weights[:own])
            tensors = zip(*(iter(weights[own:]),) * 4, strict=True)
            layers = [
                _Layer(first, FedLayer(*four, keep))
                for first, four, keep in zip(initial, tensors, settings.keeps, strict=True)
            ]
            steps = weights[own].size(0)
            attention = _Attention(comparison, values, projection, settings, steps)
            feed = torch.zeros_like(values[:, 0])
            for t in range(steps):
                x = feed
                for layer in layers:
                    x = layer.forward(t, x)
                feed = attention.forward(t, x)
        ctx.layers, ctx.attention = layers, attention
        ctx.dtypes = [tensor.dtype for tensor in (initial, keys, values, projection, *weights)]
        return attention.features.transpose(0, 1).contiguous(), attention.weights.transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layers: list[_Layer] = ctx.layers
        attention: _Attention = ctx.attention
        states = layers[-1].states()
        attention.start_backward()
        for layer in layers:
            layer.start_backward()
        of_features, of_weights = (grad.transpose(0, 1) for grad in grads)
        of_feed: Tensor | float = 0.0
        for t in reversed(range(states.size(0))):
            grad = attention.backward(t, states[t], (of_features[t] + of_feed, of_weights[t]))
            for layer in reversed(layers):
                grad = layer.backward(t, grad)
            of_feed = grad
        of_initial, *of_layers = zip(*(layer.gradients() for layer in layers), strict=True)
        of_keys, of_values, of_projection, *of_own = attention.gradients(states)
        found = [torch.stack(of_initial), of_keys, of_values, of_projection, *of_own]
        found += [grad for four in zip(*of_layers, strict=True) for grad in four]
        return None, *(grad.to(dtype) for grad, dtype in zip(found, ctx.dtypes, strict=True))
