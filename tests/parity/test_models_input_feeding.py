"""Loops over time with hand-written backward passes against their references under autograd, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.models.attention_scores import AdditiveAttentionScore
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.kernels.attention_scores import AdditiveScorer, DotScorer, IncrementalForm
from seq2seq.models.kernels.input_feeding import (
    InputFeedingLayer,
    ProjectedMemory,
    kernel_input_feeding,
    reference_input_feeding,
)
from seq2seq.models.kernels.recurrence import reference_recurrence, run_recurrence
from seq2seq.models.kernels.selection import use_kernels

B, T, S, D, A = 3, 4, 5, 6, 7


def real(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


class Problem:
    """Random layers, memory and attention of the loop, `kind` being that of the attention score."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(1)
        count, self.coverage = (2 if kind == "coverage" else 1), kind == "coverage"
        dropout_mask = torch.rand(T, B, D).ge(0.3).double() / 0.7
        self.layers = [
            InputFeedingLayer(
                real(T, B, 3 * D), real(3 * D, D), real(3 * D, D), real(3 * D), dropout_mask if layer else None
            )
            for layer in range(count)
        ]
        additive_mask = torch.zeros(B, 1, S, dtype=torch.float64)
        additive_mask[0, 0, 3:] = float("-inf")
        self.memory = ProjectedMemory(real(B, S, D if kind == "dot" else A), real(B, S, D), additive_mask)
        weights = {"dot": (), "additive": (real(A),), "coverage": (real(A), real(A))}[kind]
        self.score = (
            IncrementalForm(DotScorer) if kind == "dot" else IncrementalForm(AdditiveScorer, real(A, D), weights)
        )
        self.state_weight, self.initial = real(D, D), real(count, B, D)
        projections = [self.state_weight, *([] if kind == "dot" else [self.score.query_weight])]
        tensors = [self.initial, self.memory.keys, self.memory.values, *projections, *weights]
        self.tensors = [*tensors, *(tensor for layer in self.layers for tensor in layer[:4])]

    def attend(self, state: Tensor, memory: ProjectedMemory, coverage: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attentional states and attention, as the papers have them (see `seq2seq.models.attention_scores`)."""
        if self.score.query_weight is None:
            scores = torch.einsum("btd,bsd->bts", state, memory.keys)
        else:
            v, *w = self.score.weights
            sums = memory.keys + F.linear(state, self.score.query_weight)
            scores = (torch.tanh(sums + (coverage.mT * w[0] if w else 0)) @ v).unsqueeze(1)
        weights = torch.softmax(scores + memory.additive_mask, dim=-1)
        return torch.tanh(weights @ memory.values + F.linear(state, self.state_weight)), weights

    def kernel(self, layers: list[InputFeedingLayer], memory: ProjectedMemory) -> tuple[Tensor, Tensor]:
        rest = {"state_weight": self.state_weight, "score": self.score, "coverage": self.coverage}
        return kernel_input_feeding(layers, self.initial, memory, **rest)

    def reference(self) -> tuple[Tensor, Tensor]:
        rest = {"attend": self.attend, "coverage": self.coverage}
        return reference_input_feeding(self.layers, self.initial, self.memory, **rest)


def assert_equal_gradients(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tensors: list[Tensor]) -> None:
    seeds = [torch.randn_like(y) for y in ours]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for got, want in zip(*(torch.autograd.grad(y, tensors, seeds) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["dot", "additive", "coverage"])
def test_the_input_feeding_loop_equals_autograd(kind):
    problem = Problem(kind)
    assert_equal_gradients(problem.kernel(problem.layers, problem.memory), problem.reference(), problem.tensors)


def recurrence_inputs() -> tuple[list[Tensor], Tensor]:
    mask = torch.ones(2, T, B, 1, dtype=torch.bool)
    mask[0, 2:, 1] = mask[1, :1, 2] = False
    return [real(2, T, B, 3 * D), real(2, B, D), real(2, 3 * D, D), real(2, 3 * D)], mask


def test_the_recurrence_equals_autograd():
    torch.manual_seed(1)
    inputs, mask = recurrence_inputs()
    with use_kernels(True):
        ours = run_recurrence(*inputs, mask)
    assert_equal_gradients((ours,), (reference_recurrence(*inputs, mask),), inputs)
    assert torch.equal(run_recurrence(*inputs, mask), reference_recurrence(*inputs, mask)), "float64 runs the reference"


def test_the_reference_of_the_recurrence_equals_torch():
    torch.manual_seed(1)
    gru = torch.nn.GRU(D, D).double()
    x, initial = real(T, B, D), real(1, B, D)
    gates = F.linear(x, gru.weight_ih_l0, gru.bias_ih_l0).unsqueeze(0)
    states = reference_recurrence(gates, initial, gru.weight_hh_l0.unsqueeze(0), gru.bias_hh_l0.unsqueeze(0))
    torch.testing.assert_close(states.squeeze(0), gru(x, initial)[0], rtol=1e-12, atol=1e-12)


def test_gradients_equal_finite_differences():
    problem = Problem("coverage")
    first, second = problem.layers
    with use_kernels(True):
        assert torch.autograd.gradcheck(
            lambda input_gates, weight_ih, keys: problem.kernel(
                [InputFeedingLayer(input_gates, weight_ih, *first[2:]), second], problem.memory._replace(keys=keys)
            ),
            (first.input_gates, first.weight_ih, problem.memory.keys),
            fast_mode=True,
        )
        inputs, mask = recurrence_inputs()
        assert torch.autograd.gradcheck(lambda *tensors: run_recurrence(*tensors, mask), inputs, fast_mode=True)
        score = AdditiveAttentionScore(D, D, A, coverage=True).double()
        inputs = real(B, T, D), real(B, S, A), real(B, T, S)
        assert torch.autograd.gradcheck(score, inputs, fast_mode=True)
        scores = score(*inputs)
    torch.testing.assert_close(score(*inputs), scores, rtol=1e-12, atol=1e-12)


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
