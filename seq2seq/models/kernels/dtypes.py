"""The dtypes that kernels compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The accumulation dtype of `dtype`, for sums and elementwise functions: at least float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of `x`: autocast's if autocast is enabled, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
