"""Loops over time with backward passes of their own against autograd over the same formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.input_feeding import Attended, FedAttention, FedLayer, run_fed
from seq2seq.models.recurrent import run_gates
from seq2seq.models.scores import AdditiveScore, ProductComparison, SumComparison

B, T, S, D, A = 3, 4, 5, 6, 7


def real(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def cell(of_input: Tensor, h: Tensor, u: Tensor, c: Tensor) -> Tensor:
    """torch.nn.GRU's equations, as its documentation has them."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = of_input.chunk(3, dim=-1), F.linear(h, u, c).chunk(3, dim=-1)
    z, n = torch.sigmoid(z_x + z_h), torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (1 - z) * n + z * h


def loop(layers: list[FedLayer], initial: Tensor, attention: FedAttention) -> tuple[Tensor, Tensor]:
    """`run_fed`, one position after another."""
    (keys, values, bias), projection = attention.attended, attention.projection
    states, feed, coverage = list(initial), torch.zeros_like(values[:, 0]), torch.zeros_like(keys[..., 0])
    features, weights = [], []
    for t in range(layers[0].base.size(0)):
        x = feed
        for i, layer in enumerate(layers):
            x = x if layer.keep is None else x * layer.keep[t]
            x = states[i] = cell(layer.base[t] + F.linear(x, layer.w), states[i], layer.u, layer.bias)
        of_state, query = F.linear(x, projection).split([D, projection.size(0) - D], dim=1)
        if attention.weights:
            v, *w = attention.weights
            sums = keys + query.unsqueeze(1) + (coverage.unsqueeze(-1) * w[0] if w else 0)
            scores = torch.tanh(sums) @ v
        else:
            scores = torch.einsum("bsd,bd->bs", keys, x)
        weight = torch.softmax(scores + bias.squeeze(1), dim=-1)
        feed = torch.tanh(torch.einsum("bs,bsd->bd", weight, values) + of_state)
        coverage = coverage + weight
        features.append(feed)
        weights.append(weight)
    return torch.stack(features, dim=1), torch.stack(weights, dim=1)


def problem(kind: str) -> tuple[list[FedLayer], Tensor, FedAttention, list[Tensor]]:
    torch.manual_seed(1)
    count = 2 if kind == "coverage" else 1
    keep = torch.rand(T, B, D).ge(0.3).double() / 0.7
    layers = [
        FedLayer(real(T, B, 3 * D), real(3 * D, D), real(3 * D, D), real(3 * D), keep if layer else None)
        for layer in range(count)
    ]
    bias = torch.zeros(B, 1, S, dtype=torch.float64)
    bias[0, 0, 3:] = float("-inf")
    attended = Attended(real(B, S, D if kind == "dot" else A), real(B, S, D), bias)
    weights = {"dot": (), "additive": (real(A),), "coverage": (real(A), real(A))}[kind]
    compare = ProductComparison if kind == "dot" else SumComparison
    projection = real(D if kind == "dot" else D + A, D)
    attention = FedAttention(attended, projection, compare, weights, kind == "coverage")
    initial = real(count, B, D)
    tensors = [initial, attended.keys, attended.values, projection, *weights]
    return layers, initial, attention, [*tensors, *(tensor for layer in layers for tensor in layer[:4])]


@pytest.mark.parametrize("kind", ["dot", "additive", "coverage"])
def test_the_fed_loop_equals_autograd(kind):
    layers, initial, attention, tensors = problem(kind)
    ours, theirs = run_fed(layers, initial, attention), loop(layers, initial, attention)
    seeds = [torch.randn_like(y) for y in ours]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for got, want in zip(*(torch.autograd.grad(y, tensors, seeds) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_gradients_equal_differences():
    layers, initial, attention, _ = problem("coverage")
    fast = {"fast_mode": True}
    assert torch.autograd.gradcheck(
        lambda base, w, keys: run_fed(
            [FedLayer(base, w, *layers[0][2:]), layers[1]],
            initial,
            attention._replace(attended=attention.attended._replace(keys=keys)),
        ),
        (layers[0].base, layers[0].w, attention.attended.keys),
        **fast,
    )
    mask = torch.ones(2, T, B, 1, dtype=torch.bool)
    mask[0, 2:, 1] = mask[1, :1, 2] = False
    inputs = real(2, T, B, 3 * D), real(2, B, D), real(2, 3 * D, D), real(2, 3 * D)
    assert torch.autograd.gradcheck(lambda gates, h, u, c: run_gates(gates, h, (u, c), mask), inputs, **fast)
    score = AdditiveScore(D, D, A, coverage=True).double()
    assert torch.autograd.gradcheck(score, (real(B, T, D), real(B, S, A), real(B, T, S)), **fast)


PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv_")


@pytest.fixture
def count(operators):
    """The matrix products of the decoder's passes forth and back over so many positions, and the largest tensor."""

    def counted(steps, *, fed):
        torch.manual_seed(2)
        sizes = {"d_model": 8, "encoder_size": 4, "embedding_size": 8, "attention_size": 64, "dropout": 0.0}
        config = GRUConfig(attention=GRUAttention.additive, input_feeding=fed, **sizes)
        model = build_model(config, Vocabulary(20, 20, True))
        src = torch.full((2, 10), 5)
        memory = model.encode(src, src > 0)
        memory.states = memory.states.detach().requires_grad_()
        with operators() as found:
            model.decode(torch.full((2, steps), 6), memory).features.sum().backward()
        return sum(found.counts[name] for name in PRODUCTS), found.largest

    return counted


def test_a_position_takes_so_many_products_and_no_more_memory_for_scores(count):
    (short, _), (long, _) = count(8, fed=True), count(9, fed=True)
    # Forth: gates twice, projections, scores, context. Back: weights, v, query, projections, gates twice.
    assert long - short == 5 + 6
    for fed in (True, False):
        _, largest = count(40, fed=fed)
        assert largest < 4 * 40 * 2 * 10 * 64 / 8, "bytes near those of the sums of all positions"
