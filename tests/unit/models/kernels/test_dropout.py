import pytest
import torch

from seq2seq.models.kernels.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_rate_and_expectation(p):
    torch.manual_seed(1)
    y = Dropout(p)(torch.ones(1000, 1001))
    rounded = round(p * 256) / 256
    assert (y == 0).double().mean().item() == pytest.approx(rounded, abs=0.002)
    assert y.double().mean().item() == pytest.approx(1.0, abs=0.01)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / (1 - rounded))]


def test_masks_are_independent_between_elements_and_rows():
    torch.manual_seed(2)
    mask = (Dropout(0.5)(torch.ones(2000, 64)) > 0).double()
    correlation = torch.corrcoef(mask.t()) - torch.eye(64)
    assert correlation.abs().max() < 0.12  # 2000 draws: five standard deviations


def test_each_element_uses_one_random_byte():
    torch.manual_seed(6)
    Dropout(0.3)(torch.ones(15, 7))
    after = torch.rand(1)
    torch.manual_seed(6)
    torch.empty(14, dtype=torch.int64).random_(-(2**63), None)  # 105 elements, eight per word
    assert torch.equal(after, torch.rand(1))


def test_it_draws_from_the_default_generator():
    x, dropout = torch.randn(13, 7), Dropout(0.3)
    torch.manual_seed(3)
    first, state, second = dropout(x), torch.get_rng_state(), dropout(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), second)


def test_gradient_is_dropped_with_the_values():
    torch.manual_seed(4)
    x, residual = (torch.randn(50, 20, requires_grad=True) for _ in range(2))
    y = Dropout(0.4).add(residual, x)
    y.sum().backward()
    torch.testing.assert_close(y, residual + x * x.grad)
    assert torch.equal(residual.grad, torch.ones_like(residual))
    assert 0.3 < (x.grad == 0).double().mean() < 0.5


def test_off_in_evaluation_and_at_zero():
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_bfloat16_keeps_its_type():
    y = Dropout(0.1)(torch.ones(100, dtype=torch.bfloat16))
    assert y.dtype is torch.bfloat16


def test_compiled_code_uses_torch_dropout(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, residual = torch.ones(50, 7), torch.full((50, 7), 2.0)
    torch.manual_seed(1)
    expected = torch.nn.functional.dropout(x, 0.3)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.3)(x), expected)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.3).add(residual, x), residual + expected)
