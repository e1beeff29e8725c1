"""The copy mixture against its definition written out over the whole vocabulary, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from seq2seq.models.copying import CopyDistribution, SourceTokens
from seq2seq.models.output import DecoderOutput, OutputLayer

B, T, S, D, V = 3, 7, 9, 8, 21


def problem(seed: int = 1, *, dtype: torch.dtype = torch.float32):
    """Output layer, features [B, T, D], attention [B, T, S] with padding, sources with repeated tokens, labels."""
    torch.manual_seed(seed)
    output = OutputLayer(D, vocab_size=V, copy=True)
    src = torch.randint(4, 12, (B, S))
    src[0, -3:] = 0
    scores = torch.randn(B, T, S).masked_fill((src == 0).unsqueeze(1), float("-inf"))
    features = torch.randn(B, T, D).to(dtype).requires_grad_()
    return output, features, scores.softmax(dim=-1).requires_grad_(), src, torch.randint(4, V, (B, T))


def decoder_output(features, attention, src) -> DecoderOutput:
    return DecoderOutput(features, attention, CopyDistribution.from_attention(attention, SourceTokens.from_ids(src)))


def definition(output, features, attention, src) -> torch.Tensor:
    """p [B, T, V] by a dense matrix of which source position holds which token, in float64."""
    g = output.gate(features).double().sigmoid()
    generated = F.linear(features, output.weight).double().softmax(dim=-1)
    return g * generated + (1 - g) * attention.double() @ F.one_hot(src, V).double()


def test_probabilities_match_the_definition_and_sum_to_one():
    output, features, attention, src, _ = problem()
    got = output.log_probs(decoder_output(features, attention, src))
    assert got.dtype is torch.float32
    torch.testing.assert_close(got.double().exp(), definition(output, features, attention, src), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(B, T))


def test_a_source_token_that_appears_twice_gets_the_sum():
    output = OutputLayer(D, vocab_size=V, copy=True)
    with torch.no_grad():
        output.weight.zero_()
        output.gate.weight.zero_()
        output.gate.bias.zero_()
    attention = torch.tensor([[0.2, 0.3, 0.1, 0.4]])
    probs = output.log_probs(decoder_output(torch.ones(1, D), attention, torch.tensor([[7, 5, 7, 3]]))).exp()[0]
    expected = torch.full((V,), 0.5 / V)
    expected[7] += 0.5 * (0.2 + 0.1)
    expected[5] += 0.5 * 0.3
    expected[3] += 0.5 * 0.4
    torch.testing.assert_close(probs, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("chunk_rows", [16, None])
def test_loss_and_gradients_equal_the_smoothed_cross_entropy_of_the_mixture(smoothing, chunk_rows):
    output, features, attention, src, labels = problem()
    rows = torch.tensor([0, 20, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2])
    wanted = labels.flatten()[rows]
    sums = output.loss(decoder_output(features, attention, src).rows(rows), wanted, smoothing, chunk_rows=chunk_rows)
    log_p = definition(output, features, attention, src).log().flatten(0, 1)[rows]
    target = torch.full_like(log_p, smoothing / V)
    target[torch.arange(len(rows)), wanted] += 1 - smoothing
    expected = -(target * log_p).sum()
    torch.testing.assert_close(sums.loss.double(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sums.nll.double(), F.nll_loss(log_p, wanted, reduction="sum"), atol=1e-4, rtol=1e-5)
    assert sums.correct.item() == (log_p.argmax(1) == wanted).sum().item() > 0
    into = [features, attention, *output.parameters()]
    got = torch.autograd.grad(sums.loss * 0.25, into)
    for ours, theirs in zip(got, torch.autograd.grad(expected * 0.25, into), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("ids", [[5, 7, 5, 3], [6], [0, 0, 0]], ids=["words", "one token", "nothing but padding"])
def test_all_attention_on_one_position(ids):
    """All other positions have exactly zero attention, or there is only one position."""
    output, features, *_ = problem(4)
    src = torch.tensor([ids] * B)
    attention = F.one_hot(torch.zeros(B, T, dtype=torch.int64), len(ids)).float().requires_grad_()
    labels, rows = torch.tensor([5, 3, 0, 6, 7, 20, 5] * B), torch.arange(B * T)
    sums = output.loss(decoder_output(features, attention, src).rows(rows), labels, 0.1)
    log_p = definition(output, features, attention, src).log().flatten(0, 1)
    expected = 0.9 * F.nll_loss(log_p, labels, reduction="sum") - 0.1 * log_p.mean(1).sum()
    torch.testing.assert_close(sums.loss.double(), expected, atol=1e-4, rtol=1e-5)
    into = [features, attention, *output.parameters()]
    got, wanted = torch.autograd.grad(sums.loss, into), torch.autograd.grad(expected, into)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_copy_probabilities_are_the_posterior_of_the_definition():
    output, features, attention, src, tokens = problem(2)
    tokens[:, 0] = src[:, 0]
    got = output.copy_probs(decoder_output(features, attention, src), tokens)
    g = output.gate(features).double().sigmoid().squeeze(-1)
    copied = (1 - g) * (attention * (src.unsqueeze(1) == tokens.unsqueeze(2))).sum(-1)
    mixture = definition(output, features, attention, src).gather(2, tokens.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(got.double(), copied / mixture, atol=1e-6, rtol=1e-5)
    assert (got[:, 0] > 0).all()
    assert (got[tokens > 12] == 0).all()


def test_extremes_stay_finite():
    """Extreme logits and gate, attention that underflowed to zero, labels with no probability in either part."""
    output = OutputLayer(2, vocab_size=V, copy=True)
    with torch.no_grad():
        output.weight.zero_()
        output.weight[4, 0], output.weight[5, 0] = 3e4, -3e4
        output.gate.weight.copy_(torch.tensor([[0.0, 1.0]]))
        output.gate.bias.zero_()
    features = torch.tensor([[1.0, 2e2], [1.0, -2e2], [1.0, -2e2], [-1.0, 2e2]], requires_grad=True)
    attention = torch.tensor([[1.0, 0.0]] * 4, requires_grad=True)
    decoded = decoder_output(features, attention, torch.tensor([[6, 5]]))
    sums = output.loss(decoded, torch.tensor([5, 5, 6, 4]), 0.1)
    sums.loss.backward()
    assert sums.loss.isfinite()
    assert sums.nll.isfinite()
    for tensor in (features, attention, *output.parameters()):
        assert tensor.grad.isfinite().all()
    assert not output.log_probs(decoded).isnan().any()
    assert output.copy_probs(decoded, torch.tensor([5, 5, 6, 4])).isfinite().all()


def test_under_autocast_the_mixture_is_computed_in_float32():
    output, features, attention, src, labels = problem(3)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decoder_output(features, attention, src)
        log_probs = output.log_probs(decoded)
        sums = output.loss(decoded.rows(torch.arange(B * T)), labels.flatten(), 0.1)
    assert log_probs.dtype is torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, T), atol=1e-6, rtol=0)
    exact = definition(output, features, attention, src)
    torch.testing.assert_close(log_probs.exp().double(), exact, atol=0.02, rtol=0.05)
    nll = F.nll_loss(exact.log().flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(sums.nll.double(), nll, atol=0.3, rtol=1e-2)
    got = torch.autograd.grad(sums.nll + sums.loss, [features, attention, output.gate.weight])
    assert all(gradient.dtype is torch.float32 and gradient.isfinite().all() for gradient in got)


def test_no_temporary_is_larger_than_the_logits_of_a_chunk():
    """Memory must not grow with target × source positions × vocabulary, nor with source positions squared."""
    output, (tokens, positions) = OutputLayer(D, vocab_size=V, copy=True), (64, 4096)
    src = torch.randint(4, V, (1, positions))
    attention = torch.rand(1, tokens, positions).softmax(-1).requires_grad_()
    features = torch.randn(1, tokens, D, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        decoded = decoder_output(features, attention, src)
        output.loss(decoded.rows(torch.arange(tokens)), torch.randint(4, V, (tokens,)), 0.1).loss.backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 2 * 8 * tokens * positions  # at most two int64 copies of the tokens of each row
