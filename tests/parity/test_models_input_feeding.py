"""Loops over time with hand-written backward passes against autograd over the same formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.models.attention_scores import AdditiveAttentionScore
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.kernels.attention_scores import AdditiveScorer, DotScorer
from seq2seq.models.kernels.input_feeding import (
    InputFeedingAttention,
    InputFeedingLayer,
    ProjectedMemory,
    run_input_feeding,
)
from seq2seq.models.kernels.recurrence import run_recurrence

B, T, S, D, A = 3, 4, 5, 6, 7


def real(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def cell(input_gates: Tensor, h: Tensor, u: Tensor, c: Tensor) -> Tensor:
    """torch.nn.GRU's equations, as its documentation has them."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = input_gates.chunk(3, dim=-1), F.linear(h, u, c).chunk(3, dim=-1)
    z, n = torch.sigmoid(z_x + z_h), torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (1 - z) * n + z * h


def loop(layers: list[InputFeedingLayer], initial: Tensor, attention: InputFeedingAttention) -> tuple[Tensor, Tensor]:
    """`run_input_feeding`, one position after another."""
    (keys, values, additive_mask), projection = attention.memory, attention.projection
    states, input_feed, coverage = list(initial), torch.zeros_like(values[:, 0]), torch.zeros_like(keys[..., 0])
    features, weights = [], []
    for t in range(layers[0].input_gates.size(0)):
        x = input_feed
        for i, layer in enumerate(layers):
            x = x if layer.dropout_mask is None else x * layer.dropout_mask[t]
            input_gates = layer.input_gates[t] + F.linear(x, layer.weight_ih)
            x = states[i] = cell(input_gates, states[i], layer.weight_hh, layer.bias_hh)
        projected_state, query = F.linear(x, projection).split([D, projection.size(0) - D], dim=1)
        if attention.scorer_weights:
            v, *w = attention.scorer_weights
            sums = keys + query.unsqueeze(1) + (coverage.unsqueeze(-1) * w[0] if w else 0)
            scores = torch.tanh(sums) @ v
        else:
            scores = torch.einsum("bsd,bd->bs", keys, x)
        weight = torch.softmax(scores + additive_mask.squeeze(1), dim=-1)
        input_feed = torch.tanh(torch.einsum("bs,bsd->bd", weight, values) + projected_state)
        coverage = coverage + weight
        features.append(input_feed)
        weights.append(weight)
    return torch.stack(features, dim=1), torch.stack(weights, dim=1)


def problem(kind: str) -> tuple[list[InputFeedingLayer], Tensor, InputFeedingAttention, list[Tensor]]:
    torch.manual_seed(1)
    count = 2 if kind == "coverage" else 1
    dropout_mask = torch.rand(T, B, D).ge(0.3).double() / 0.7
    layers = [
        InputFeedingLayer(
            real(T, B, 3 * D), real(3 * D, D), real(3 * D, D), real(3 * D), dropout_mask if layer else None
        )
        for layer in range(count)
    ]
    additive_mask = torch.zeros(B, 1, S, dtype=torch.float64)
    additive_mask[0, 0, 3:] = float("-inf")
    memory = ProjectedMemory(real(B, S, D if kind == "dot" else A), real(B, S, D), additive_mask)
    weights = {"dot": (), "additive": (real(A),), "coverage": (real(A), real(A))}[kind]
    scorer_class = DotScorer if kind == "dot" else AdditiveScorer
    projection = real(D if kind == "dot" else D + A, D)
    attention = InputFeedingAttention(memory, projection, scorer_class, weights, kind == "coverage")
    initial = real(count, B, D)
    tensors = [initial, memory.keys, memory.values, projection, *weights]
    return layers, initial, attention, [*tensors, *(tensor for layer in layers for tensor in layer[:4])]


@pytest.mark.parametrize("kind", ["dot", "additive", "coverage"])
def test_the_input_feeding_loop_equals_autograd(kind):
    layers, initial, attention, tensors = problem(kind)
    ours, theirs = run_input_feeding(layers, initial, attention), loop(layers, initial, attention)
    seeds = [torch.randn_like(y) for y in ours]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for got, want in zip(*(torch.autograd.grad(y, tensors, seeds) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_gradients_equal_finite_differences():
    layers, initial, attention, _ = problem("coverage")
    fast = {"fast_mode": True}
    assert torch.autograd.gradcheck(
        lambda input_gates, weight_ih, keys: run_input_feeding(
            [InputFeedingLayer(input_gates, weight_ih, *layers[0][2:]), layers[1]],
            initial,
            attention._replace(memory=attention.memory._replace(keys=keys)),
        ),
        (layers[0].input_gates, layers[0].weight_ih, attention.memory.keys),
        **fast,
    )
    mask = torch.ones(2, T, B, 1, dtype=torch.bool)
    mask[0, 2:, 1] = mask[1, :1, 2] = False
    inputs = real(2, T, B, 3 * D), real(2, B, D), real(2, 3 * D, D), real(2, 3 * D)
    assert torch.autograd.gradcheck(lambda gates, h, u, c: run_recurrence(gates, h, (u, c), mask), inputs, **fast)
    score = AdditiveAttentionScore(D, D, A, coverage=True).double()
    assert torch.autograd.gradcheck(score, (real(B, T, D), real(B, S, A), real(B, T, S)), **fast)


PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv_")


@pytest.fixture
def count(operators):
    """Counts the decoder's matrix products, forward and backward, over `steps` positions; finds the largest tensor."""

    def counted(steps, *, input_feeding):
        torch.manual_seed(2)
        sizes = {"d_model": 8, "encoder_size": 4, "embedding_size": 8, "attention_size": 64, "dropout": 0.0}
        config = GRUConfig(attention=GRUAttention.additive, input_feeding=input_feeding, **sizes)
        model = build_model(config, Vocabulary(20, 20, True))
        src = torch.full((2, 10), 5)
        memory = model.encode(src, src > 0)
        memory.states = memory.states.detach().requires_grad_()
        with operators() as found:
            model.decode(torch.full((2, steps), 6), memory).features.sum().backward()
        return sum(found.counts[name] for name in PRODUCTS), found.largest

    return counted


def test_products_per_position_and_memory_of_scores(count):
    (short, _), (long, _) = count(8, input_feeding=True), count(9, input_feeding=True)
    # Forward: gates twice, projections, scores, context. Backward: weights, v, query, projections, gates twice.
    assert long - short == 5 + 6
    for input_feeding in (True, False):
        _, largest = count(40, input_feeding=input_feeding)
        assert largest < 4 * 40 * 2 * 10 * 64 / 8, "bytes near those of the scores of all positions"
