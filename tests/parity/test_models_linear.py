"""Linear layers with a hand-written backward pass against torch.nn.functional."""

import pytest
import torch

from seq2seq.models.kernels.linear import linear, reference_linear
from seq2seq.models.kernels.padding import round_up


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_equal_torch_under_autocast(relu, dtype):
    torch.manual_seed(1)
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((3, 7, 40), (24, 40), (24,)))
    up = torch.randn(3, 7, 24)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        actual = linear(x, weight, bias, relu=relu)
        expected = reference_linear(x, weight, bias, relu=relu)
    assert actual.dtype is dtype
    torch.testing.assert_close(actual, expected, atol=0.02, rtol=0.02)
    into = (x, weight, bias)
    for ours, theirs in zip(
        torch.autograd.grad((actual * up).sum(), into), torch.autograd.grad((expected * up).sum(), into), strict=True
    ):
        assert ours.dtype is torch.float32
        assert (ours - theirs).norm() <= 0.01 * theirs.norm()


def test_no_gradient_is_computed_for_inputs_that_need_none():
    x, weight, bias = torch.randn(5, 8), torch.randn(4, 8, requires_grad=True), torch.randn(4)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, weight, bias)
    y.float().sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(4, 8), atol=0.05, rtol=0.02)
    assert x.grad is None


def test_rounded_row_counts_are_few_and_close_to_the_requested_ones():
    rows = range(1, 20_000)
    rounded = [round_up(count) for count in rows]
    assert all(more >= count and round_up(more) == more for count, more in zip(rows, rounded, strict=True))
    assert all(more <= count * 1.04 for count, more in zip(rows, rounded, strict=True) if count >= 512)
    assert len({more for more in rounded if 1024 < more <= 2048}) == 32
