"""Chooses between the hand-written kernels and their references in plain torch.

Kernels compute in every dtype but float64, which is for checking gradients. Their backward passes cannot be
differentiated again: compute second derivatives within `use_kernels(False)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., object])

_forced: bool | None = None


@contextmanager
def use_kernels(enabled: bool) -> Iterator[None]:
    """Context in which all forward passes use kernels, or (False) references, whatever the dtype."""
    global _forced
    outer, _forced = _forced, enabled
    try:
        yield
    finally:
        _forced = outer


def kernels_apply(x: Tensor) -> bool:
    """Whether a kernel, not its reference, shall compute with `x`."""
    return x.dtype is not torch.float64 if _forced is None else _forced


def not_compiled(function: Function) -> Function:
    """Decorates a loop over time, which torch.compile would unroll into one large graph per length."""
    return cast(Function, torch.compiler.disable(function))
