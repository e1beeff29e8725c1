"""The decoder loop over time that input feeding requires, with a hand-written backward pass.

With input feeding, a position reads the attentional state of the previous one (Luong et al., 2015, section 3.3,
arXiv:1508.04025), so nothing that depends on it can be computed for all positions at once. The backward pass computes
position by position only what one position passes to the previous one, and additive scores' gradients. All other
gradients of weights and of the projected memory are one product over all positions, where autograd would accumulate
them position by position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.models.kernels.attention_scores import IncrementalScorer
from seq2seq.models.kernels.linear import wide_dtype
from seq2seq.models.kernels.recurrence import IncrementalGRU


class InputFeedingLayer(NamedTuple):
    """Tensors of one GRU layer of the loop, all in the compute dtype.

    Attributes:
        input_gates: the contributions to all three gates that are known before the loop, [T, B, 3D]: of the embedding
            and the bias for the first layer, of the bias for the others.
        weight_ih: [3D, I], applied to the layer's input of size I: the previous attentional state for the first layer,
            the state of the layer below for the others.
        weight_hh: [3D, D], applied to the layer's previous state.
        bias_hh: bias of `weight_hh`, [3D].
        dropout_mask: factor of the input [T, B, I], 0 or 1 / (1 - p); None without dropout.
    """

    input_gates: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_hh: Tensor
    dropout_mask: Tensor | None


class ProjectedMemory(NamedTuple):
    """Encoder states projected for attention: computed once per batch of sources, stored once per sentence.

    Attributes:
        keys: [B, S, *], as the attention score needs them.
        values: [B, S, D], the encoder states times the context half of W_c (see `attentional_state`).
        additive_mask: [B, 1, S], 0 at tokens, -inf at padding.
    """

    keys: Tensor
    values: Tensor
    additive_mask: Tensor


class InputFeedingAttention(NamedTuple):
    """Tensors and settings of the loop's attention.

    Attributes:
        memory: what is attended to.
        projection: [D, D], the state half of W_c; [D + A, D] with the score's query projection below it, if it has one.
        scorer_class: constructed from the keys and `scorer_weights`.
        scorer_weights: see `AttentionScore.scorer_weights`.
        coverage: whether the scorer reads coverage.
    """

    memory: ProjectedMemory
    projection: Tensor
    scorer_class: Callable[..., IncrementalScorer]
    scorer_weights: tuple[Tensor, ...]
    coverage: bool


def attentional_state(scores: Tensor, projected_state: Tensor, memory: ProjectedMemory) -> tuple[Tensor, Tensor]:
    """tanh(W_c [c; h]), [B, T, D], and the attention weights [B, T, S] wide: Luong et al. (2015, eq. 5).

    W_c is split into two halves, and its context half is applied to the encoder states in advance: the context c is a
    weighted sum of them, so its projection is the same sum of the projected states.

    Args:
        scores: scores of the queries h against the keys [B, T, S], wide.
        projected_state: the state half of W_c applied to h, [B, T, D].
        memory: the projected memory.
    """
    weights = torch.softmax(scores + memory.additive_mask, dim=-1)
    context = weights.to(memory.values.dtype) @ memory.values
    wide = (context + projected_state).to(weights.dtype)  # tanh of bfloat16 is slow
    return torch.tanh(wide).to(projected_state.dtype), weights


# Not compiled: torch.compile would unroll the loop over time into one large graph per length.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_input_feeding(
    layers: list[InputFeedingLayer], initial: Tensor, attention: InputFeedingAttention
) -> tuple[Tensor, Tensor]:
    """Attentional states [B, T, D] and attention weights [B, T, S], wide, of all positions.

    Args:
        layers: from the lowest to the highest.
        initial: states of the layers before the first step [L, B, D].
        attention: tensors and settings of the attention.
    """
    memory = attention.memory
    constants = _LoopConstants(memory.additive_mask, attention, [layer.dropout_mask for layer in layers])
    layer_tensors = [tensor for layer in layers for tensor in layer[:4]]
    result: tuple[Tensor, Tensor] = _InputFeedingLoop.apply(  # type: ignore[no-untyped-call]
        constants, initial, memory.keys, memory.values, attention.projection, *attention.scorer_weights, *layer_tensors
    )
    return result


class _LoopConstants(NamedTuple):
    """Settings and tensors for which `_InputFeedingLoop` returns no gradient."""

    additive_mask: Tensor
    attention: InputFeedingAttention
    dropout_masks: list[Tensor | None]


class _LayerSteps:
    """Forward and backward steps of one GRU layer."""

    def __init__(self, initial: Tensor, layer: InputFeedingLayer):
        self._layer = layer
        steps, rows, _ = layer.input_gates.shape
        self._gru = IncrementalGRU(
            steps, initial.unsqueeze(0), layer.weight_hh.unsqueeze(0), layer.bias_hh.unsqueeze(0)
        )
        self._inputs = layer.weight_ih.new_empty(steps, rows, layer.weight_ih.size(1))

    def forward(self, t: int, x: Tensor) -> Tensor:
        """State [B, D] from the input [B, I]."""
        input_gates, weight_ih, _, _, dropout_mask = self._layer
        x = self._inputs[t].copy_(x if dropout_mask is None else x * dropout_mask[t])
        return self._gru.forward(t, torch.addmm(input_gates[t], x, weight_ih.t()).unsqueeze(0)).squeeze(0)

    def states(self) -> Tensor:
        """[T, B, D]."""
        return self._gru.states[0, 1:]

    def start_backward(self) -> None:
        self._gru.start_backward()

    def backward(self, t: int, grad_state: Tensor) -> Tensor:
        """Gradient of the input [B, I]; `grad_state` [B, D] is without the part that comes from step t + 1."""
        grad_gates = self._gru.backward(t, grad_state.unsqueeze(0)).squeeze(0)
        grad_input = torch.mm(grad_gates, self._layer.weight_ih)
        return grad_input if self._layer.dropout_mask is None else grad_input * self._layer.dropout_mask[t]

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of the initial state, and of input_gates, weight_ih, weight_hh and bias_hh."""
        grad_input_gates = self._gru.grad_input_gates.squeeze(0)
        grad_weight_ih = torch.mm(grad_input_gates.flatten(0, 1).t(), self._inputs.flatten(0, 1))
        grads_hh = (grad.squeeze(0) for grad in self._gru.gradients())
        return self._gru.grad_state.squeeze(0), grad_input_gates, grad_weight_ih, *grads_hh


class _AttentionSteps:
    """Forward and backward steps of the attention."""

    def __init__(
        self, scorer: IncrementalScorer, values: Tensor, projection: Tensor, constants: _LoopConstants, steps: int
    ):
        self._scorer, self._values, self._projection = scorer, values, projection
        self._memory = ProjectedMemory(values, values, constants.additive_mask)
        self._size = values.size(2)
        rows, length = values.shape[:2]
        wide = wide_dtype(values.dtype)
        self.features = values.new_empty(steps, rows, self._size)
        self.weights = values.new_empty(steps, rows, length, dtype=wide)
        self._projected = values.new_empty(steps, rows, projection.size(0))
        self._coverage = None
        if constants.attention.coverage:
            self._coverage = values.new_zeros(steps + 1, rows, length, dtype=wide)

    def _query(self, t: int, state: Tensor) -> Tensor:
        return state if self._projected.size(2) == self._size else self._projected[t, :, self._size :]

    def forward(self, t: int, state: Tensor) -> Tensor:
        """Attentional state [B, D] from the state [B, D]."""
        projected = torch.mm(state, self._projection.t(), out=self._projected[t])
        coverage = None if self._coverage is None else self._coverage[t]
        scores = self._scorer.forward(self._query(t, state), coverage)
        feature, weights = attentional_state(scores.unsqueeze(1), projected[:, : self._size].unsqueeze(1), self._memory)
        self.weights[t] = weights.squeeze(1)
        if self._coverage is not None:
            torch.add(self._coverage[t], self.weights[t], out=self._coverage[t + 1])
        return self.features[t].copy_(feature.squeeze(1))

    def start_backward(self) -> None:
        self._scorer.start_backward()
        self._grad_projected = torch.empty_like(self._projected)
        self._grad_coverage = torch.zeros_like(self.weights[0])  # of the coverage after the current position

    def backward(self, t: int, state: Tensor, grad_feature: Tensor, grad_weights: Tensor) -> Tensor:
        """Gradient of the state [B, D] from those of the attentional state [B, D] and the weights [B, S]."""
        wide, size = self.weights.dtype, self._size
        weights = self.weights[t]
        grad_preactivation = self._grad_projected[t, :, :size]
        grad_preactivation.copy_(torch.ops.aten.tanh_backward(grad_feature.to(wide), self.features[t].to(wide)))
        grad_weights = (
            grad_weights + torch.bmm(self._values, grad_preactivation.unsqueeze(2)).squeeze(2) + self._grad_coverage
        )
        grad_scores = weights * (grad_weights - (weights * grad_weights).sum(dim=1, keepdim=True))
        coverage = None if self._coverage is None else self._coverage[t]
        grad_query, grad_coverage = self._scorer.backward(self._query(t, state), coverage, grad_scores)
        if grad_coverage is not None:
            self._grad_coverage = self._grad_coverage + grad_coverage
        if self._projected.size(2) == size:
            return torch.mm(self._grad_projected[t], self._projection) + grad_query
        self._grad_projected[t, :, size:] = grad_query
        return torch.mm(self._grad_projected[t], self._projection)

    def gradients(self, states: Tensor) -> tuple[Tensor, ...]:
        """Gradients of keys, values, projection and the scorer's weights, given the states [T, B, D]."""
        grad_keys, *grad_scorer_weights = self._scorer.gradients()
        weights = self.weights.permute(1, 2, 0).to(self._values.dtype)  # [B, S, T]
        grad_values = torch.bmm(weights, self._grad_projected[..., : self._size].transpose(0, 1))
        grad_projection = torch.mm(self._grad_projected.flatten(0, 1).t(), states.flatten(0, 1))
        return grad_keys, grad_values, grad_projection, *grad_scorer_weights


class _InputFeedingLoop(torch.autograd.Function):
    """Autograd function of `run_input_feeding`; `weights` are the scorer's, then four tensors per layer."""

    @staticmethod
    def forward(
        ctx: Any, constants: _LoopConstants, initial: Tensor, keys: Tensor, values: Tensor, projection: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        num_scorer_weights = len(constants.attention.scorer_weights)
        with torch.autocast(keys.device.type, enabled=False):
            scorer = constants.attention.scorer_class(keys, *weights[:num_scorer_weights])
            layer_tensors = zip(*(iter(weights[num_scorer_weights:]),) * 4, strict=True)
            layers = [
                _LayerSteps(state, InputFeedingLayer(*tensors, dropout_mask))
                for state, tensors, dropout_mask in zip(initial, layer_tensors, constants.dropout_masks, strict=True)
            ]
            steps = weights[num_scorer_weights].size(0)
            attention = _AttentionSteps(scorer, values, projection, constants, steps)
            input_feed = torch.zeros_like(values[:, 0])
            for t in range(steps):
                x = input_feed
                for layer in layers:
                    x = layer.forward(t, x)
                input_feed = attention.forward(t, x)
        ctx.layers, ctx.attention = layers, attention
        ctx.dtypes = [tensor.dtype for tensor in (initial, keys, values, projection, *weights)]
        return attention.features.transpose(0, 1).contiguous(), attention.weights.transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layers: list[_LayerSteps] = ctx.layers
        attention: _AttentionSteps = ctx.attention
        states = layers[-1].states()
        attention.start_backward()
        for layer in layers:
            layer.start_backward()
        grad_features, grad_weights = (grad.transpose(0, 1) for grad in grads)
        grad_input_feed: Tensor | float = 0.0
        for t in reversed(range(states.size(0))):
            grad = attention.backward(t, states[t], grad_features[t] + grad_input_feed, grad_weights[t])
            for layer in reversed(layers):
                grad = layer.backward(t, grad)
            grad_input_feed = grad
        grad_initial, *layer_grads = zip(*(layer.gradients() for layer in layers), strict=True)
        grad_keys, grad_values, grad_projection, *grad_scorer_weights = attention.gradients(states)
        all_grads = [torch.stack(grad_initial), grad_keys, grad_values, grad_projection, *grad_scorer_weights]
        all_grads += [grad for grads_of_layer in zip(*layer_grads, strict=True) for grad in grads_of_layer]
        return None, *(grad.to(dtype) for grad, dtype in zip(all_grads, ctx.dtypes, strict=True))
