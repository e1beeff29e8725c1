from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from seq2seq.models.kernels.packed_linear import PackedLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 17, 40])
@torch.no_grad()
def test_packed_layers_equal_separate_layers(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weights = [torch.randn(n, 24, generator=generator) for n in (8, 5)]
    biases = [torch.randn(n, generator=generator) for n in (8, 5)]
    x = torch.randn(2, rows, 24, generator=generator)
    expected = torch.cat([F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)], dim=-1)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        packed, plain = PackedLinear(weights, biases), PackedLinear(weights[:1])
    y = packed(x)
    assert y.dtype is dtype
    torch.testing.assert_close(y.float(), expected, atol=tolerance, rtol=tolerance)
    without_bias = plain(x, relu=True).float()
    torch.testing.assert_close(without_bias, F.linear(x, weights[0]).relu(), atol=tolerance, rtol=tolerance)
