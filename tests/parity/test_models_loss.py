"""The chunked loss against F.cross_entropy, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from seq2seq.models.kernels.cross_entropy import cross_entropy, reference_cross_entropy
from seq2seq.models.kernels.selection import use_kernels
from seq2seq.models.output import DecoderOutput, OutputLayer

M, D, V = 50, 8, 21


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("chunk_rows", [16, None])
@pytest.mark.parametrize("projected", [False, True])
def test_sums_and_gradients_equal_cross_entropy(smoothing, chunk_rows, projected):
    torch.manual_seed(1)
    tied = torch.nn.Parameter(torch.randn(V, 5)) if projected else None
    output = OutputLayer(D, vocab_size=V, tied=tied)
    features = torch.randn(M, D, requires_grad=True)
    labels = torch.randint(V, (M,))
    sums = output.loss(DecoderOutput(features), labels, smoothing, chunk_rows=chunk_rows)
    logits = F.linear(output.projection(features) if projected else features, output.weight)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(sums.loss, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sums.nll, F.cross_entropy(logits, labels, reduction="sum"), atol=1e-4, rtol=1e-5)
    assert sums.correct.item() == (logits.argmax(1) == labels).sum().item()
    assert sums.tokens.item() == M
    into = [features, *output.parameters()]
    got = torch.autograd.grad(sums.loss * 0.25, into)
    for ours, theirs in zip(got, torch.autograd.grad(expected * 0.25, into), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sums_and_gradients_equal_the_reference(smoothing):
    torch.manual_seed(4)
    tensors = torch.randn(M, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    labels = torch.randint(V, (M,))
    ours = cross_entropy(*tensors, labels, smoothing, copying=None, chunk_rows=16)
    theirs = reference_cross_entropy(*tensors, labels, smoothing, copying=None)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    for got, want in zip(*(torch.autograd.grad(sums[0], tensors) for sums in (ours, theirs)), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    assert not theirs[1].requires_grad


def test_float64_and_no_kernels_run_the_reference():
    features, weight, labels = torch.randn(M, D), torch.randn(V, D, requires_grad=True), torch.randint(V, (M,))
    sums = cross_entropy(features.double(), weight.double(), labels, 0.1, copying=None, chunk_rows=16)
    assert sums[0].dtype is torch.float64
    for kernels in (True, False):
        with use_kernels(kernels):
            loss, *_ = cross_entropy(features, weight, labels, 0.1, copying=None, chunk_rows=16)
        assert ("CrossEntropy" in loss.grad_fn.name()) == kernels


def test_extreme_logits_stay_finite():
    output = OutputLayer(2, vocab_size=3, tied=torch.nn.Parameter(torch.tensor([[3e4, 0.0], [-3e4, 0.0], [0.0, 1.0]])))
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    sums = output.loss(DecoderOutput(features), torch.tensor([0, 1]), 0.1)
    sums.loss.backward()
    assert sums.loss.isfinite()
    assert features.grad.isfinite().all()
    assert sums.correct.item() == 2


def test_under_autocast_gradients_follow_the_bfloat16_logits():
    torch.manual_seed(2)
    output, features, labels = (
        OutputLayer(D, vocab_size=V),
        torch.randn(M, D, requires_grad=True),
        torch.randint(V, (M,)),
    )
    with torch.autocast("cpu", torch.bfloat16):
        sums = output.loss(DecoderOutput(features), labels, 0.1)
    expected = F.cross_entropy(F.linear(features, output.weight), labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(sums.loss, expected, atol=0.3, rtol=1e-2)
    into = [features, output.weight]
    for ours, theirs in zip(torch.autograd.grad(sums.loss, into), torch.autograd.grad(expected, into), strict=True):
        assert ours.dtype is torch.float32
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("smoothing", "error"), [(0.0, 0.025), (0.1, 0.01)])
def test_bfloat16_gradients_of_confident_predictions_are_accurate(smoothing, error):
    """1 - p must not be lost in rounding when the probability p is near one."""
    torch.manual_seed(0)
    weight = (torch.randn(2000, 256) * 0.06).bfloat16().float().requires_grad_()
    labels = torch.randint(2000, (500,))
    features = (torch.randn(500, 256) + weight.detach()[labels] / 0.06).bfloat16().float().requires_grad_()
    output = OutputLayer(256, vocab_size=2000, tied=torch.nn.Parameter(weight.detach().clone()))
    with torch.autocast("cpu", torch.bfloat16):
        sums = output.loss(DecoderOutput(features), labels, smoothing)
    expected = F.cross_entropy(F.linear(features, weight), labels, label_smoothing=smoothing, reduction="sum")
    (ours,), (theirs,) = (torch.autograd.grad(loss, [features]) for loss in (sums.loss, expected))
    assert sums.nll / 500 < 0.02
    assert (ours - theirs).norm() < error * theirs.norm()


def test_no_graph_is_kept_without_gradients():
    output = OutputLayer(D, vocab_size=V)
    with torch.no_grad():
        sums = output.loss(DecoderOutput(torch.randn(M, D)), torch.randint(V, (M,)), 0.1)
    assert not sums.loss.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch, mode):
    products = []
    monkeypatch.setattr(torch, "mm", lambda *args, mm=torch.mm, **kw: products.append(1) or mm(*args, **kw))
    output, features, labels = OutputLayer(D, vocab_size=V), torch.randn(M, D), torch.randint(V, (M,))
    with mode():
        output.loss(DecoderOutput(features), labels, 0.1)
    assert len(products) == 1  # the logits; gradients would take two more
    output.loss(DecoderOutput(features), labels, 0.1)
    assert len(products) == 1 + 3


@pytest.mark.parametrize("loss_scale", [2.0**-4, 1.0, 2.0**16])
def test_float16_gradients_neither_underflow_nor_overflow_under_a_loss_scale(loss_scale):
    torch.manual_seed(3)
    rows, vocabulary = 3000, 4000  # smoothing / V and most probabilities are below float16's normal numbers
    output = OutputLayer(D, vocab_size=vocabulary)
    features, labels = torch.randn(rows, D, requires_grad=True), torch.randint(vocabulary, (rows,))
    with torch.autocast("cpu", torch.float16):
        loss = output.loss(DecoderOutput(features), labels, 0.1).loss / rows * loss_scale
    into = [features, output.weight]
    expected = F.cross_entropy(F.linear(features, output.weight), labels, label_smoothing=0.1)
    for ours, theirs in zip(torch.autograd.grad(loss, into), torch.autograd.grad(expected, into), strict=True):
        error = (ours / loss_scale - theirs).norm() / theirs.norm()
        assert error < 2e-3


def test_a_frequent_label_does_not_overflow_float16():
    """The gradient of its row of the weight is a sum over all rows, computed before a loss scale could shrink it."""
    rows = 40_000
    output = OutputLayer(D, vocab_size=V)
    features, labels = torch.full((rows, D), 3.0), torch.zeros(rows, dtype=torch.int64)
    features.requires_grad_()
    with torch.no_grad():
        output.weight.zero_()
    with torch.autocast("cpu", torch.float16):
        loss = output.loss(DecoderOutput(features), labels, 0.0).loss / rows
    (gradient,) = torch.autograd.grad(loss, [output.weight])
    expected = torch.full((V, D), 3.0 / V)
    expected[0] -= 3.0
    torch.testing.assert_close(gradient, expected, rtol=2e-3, atol=1e-4)
