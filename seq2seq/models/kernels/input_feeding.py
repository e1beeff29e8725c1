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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seq2seq.models.kernels.attention_scores import IncrementalForm, IncrementalScorer
from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.dtypes import compute_dtype, wide_dtype
from seq2seq.models.kernels.recurrence import IncrementalGRU, gru_cell, layer_weights
from seq2seq.models.kernels.selection import kernels_apply, not_compiled


class ProjectedMemory(NamedTuple):
    """Encoder states projected for attention: computed once per batch of sources, stored once per sentence.

    Attributes:
        keys: [B, S, *], as the attention score needs them.
        values: [B, S, D], the encoder states times the context half of W_c.
        additive_mask: [B, 1, S] float32, 0 at tokens, -inf at padding.
    """

    keys: Tensor
    values: Tensor
    additive_mask: Tensor


# From states [B, 1, D], the memory and the coverage [B, 1, S] to attentional states [B, 1, D] and attention [B, 1, S].
Attend = Callable[[Tensor, ProjectedMemory, Tensor | None], tuple[Tensor, Tensor]]


@not_compiled
def run_input_feeding(
    gru: nn.GRU,
    x: Tensor,
    initial: Tensor,
    memory: ProjectedMemory,
    *,
    attend: Attend,
    state_weight: Tensor,
    score: IncrementalForm | None,
    coverage: bool,
    dropout: Dropout,
) -> tuple[Tensor, Tensor]:
    """Attentional states [B, T, D] and attention weights [B, T, S], wide, of all positions.

    Args:
        gru: the decoder; the input of its first layer is an embedding, then the previous attentional state.
        x: embeddings [T, B, E].
        initial: states of the layers before the first step [L, B, D].
        memory: what is attended to.
        attend: computes attentional states; the kernel computes the same from the two arguments that follow.
        state_weight: [D, D], the state half of W_c.
        score: the hand-written form of the attention score; None runs the reference.
        coverage: whether the score reads coverage.
        dropout: between layers.
    """
    layers = _layers(gru, x, dropout)
    if score is None or not kernels_apply(x):
        return reference_input_feeding(layers, initial, memory, attend=attend, coverage=coverage)
    return kernel_input_feeding(layers, initial, memory, state_weight=state_weight, score=score, coverage=coverage)


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


def _layers(gru: nn.GRU, x: Tensor, dropout: Dropout) -> list[InputFeedingLayer]:
    """The layers of the loop over embeddings x [T, B, E]."""
    dtype, (steps, rows, embedding_size) = compute_dtype(x), x.shape
    layers = []
    for layer in range(gru.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = layer_weights(gru, layer)
        dropout_mask = None
        if layer == 0:
            input_gates = F.linear(x, weight_ih[:, :embedding_size], bias_ih)
            weight_ih = weight_ih[:, embedding_size:]
        else:
            input_gates = bias_ih.expand(steps, rows, -1)
            if dropout.training and dropout.p:
                ones = torch.ones(steps, rows, weight_ih.size(1), dtype=dtype, device=x.device)
                dropout_mask = dropout(ones)
        weight_hh, bias_hh = weight_hh.to(dtype), bias_hh.to(dtype)
        layers.append(InputFeedingLayer(input_gates.to(dtype), weight_ih.to(dtype), weight_hh, bias_hh, dropout_mask))
    return layers


def reference_input_feeding(
    layers: list[InputFeedingLayer], initial: Tensor, memory: ProjectedMemory, *, attend: Attend, coverage: bool
) -> tuple[Tensor, Tensor]:
    """`run_input_feeding` in plain torch, position by position."""
    states = list(initial)
    feed = torch.zeros_like(memory.values[:, 0])
    total = torch.zeros_like(memory.additive_mask) if coverage else None
    features, weights = [], []
    for t in range(layers[0].input_gates.size(0)):
        x = feed
        for i, layer in enumerate(layers):
            x = x if layer.dropout_mask is None else x * layer.dropout_mask[t]
            input_gates = layer.input_gates[t] + F.linear(x, layer.weight_ih)
            x = states[i] = gru_cell(input_gates, F.linear(states[i], layer.weight_hh, layer.bias_hh), states[i])
        feature, weight = attend(x.unsqueeze(1), memory, total)
        total = None if total is None else total + weight
        feed = feature.squeeze(1)
        features.append(feature)
        weights.append(weight)
    return torch.cat(features, dim=1), torch.cat(weights, dim=1)


def kernel_input_feeding(
    layers: list[InputFeedingLayer],
    initial: Tensor,
    memory: ProjectedMemory,
    *,
    state_weight: Tensor,
    score: IncrementalForm,
    coverage: bool,
) -> tuple[Tensor, Tensor]:
    """`run_input_feeding` by the hand-written loop."""
    dtype = layers[0].input_gates.dtype
    projection = state_weight if score.query_weight is None else torch.cat([state_weight, score.query_weight])
    dropout_masks = [layer.dropout_mask for layer in layers]
    constants = _LoopConstants(memory.additive_mask, score.scorer, len(score.weights), coverage, dropout_masks)
    return _InputFeedingLoop.apply(
        constants,
        initial,
        memory.keys.to(dtype),
        memory.values.to(dtype),
        projection.to(dtype),
        *score.weights,
        *(tensor for layer in layers for tensor in layer[:4]),
    )


class _LoopConstants(NamedTuple):
    """Settings and tensors for which `_InputFeedingLoop` returns no gradient."""

    additive_mask: Tensor
    scorer: Callable[..., IncrementalScorer]
    num_scorer_weights: int
    coverage: bool
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
        self._mask = constants.additive_mask.squeeze(1)
        self._size = values.size(2)
        rows, length = values.shape[:2]
        wide = wide_dtype(values.dtype)
        self.features = values.new_empty(steps, rows, self._size)
        self.weights = values.new_empty(steps, rows, length, dtype=wide)
        self._projected = values.new_empty(steps, rows, projection.size(0))
        self._coverage = None
        if constants.coverage:
            self._coverage = values.new_zeros(steps + 1, rows, length, dtype=wide)

    def _query(self, t: int, state: Tensor) -> Tensor:
        return state if self._projected.size(2) == self._size else self._projected[t, :, self._size :]

    def forward(self, t: int, state: Tensor) -> Tensor:
        """Attentional state [B, D] from the state [B, D]."""
        projected = torch.mm(state, self._projection.t(), out=self._projected[t])
        coverage = None if self._coverage is None else self._coverage[t]
        scores = self._scorer.forward(self._query(t, state), coverage)
        weights = self.weights[t].copy_(torch.softmax(scores + self._mask, dim=-1))
        context = torch.bmm(weights.to(self._values.dtype).unsqueeze(1), self._values).squeeze(1)
        if self._coverage is not None:
            torch.add(self._coverage[t], self.weights[t], out=self._coverage[t + 1])
        return self.features[t].copy_(torch.tanh((context + projected[:, : self._size]).to(weights.dtype)))

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
        num_scorer_weights = constants.num_scorer_weights
        with torch.autocast(keys.device.type, enabled=False):
            scorer = constants.scorer(keys, *weights[:num_scorer_weights])
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
