"""How fast this machine multiplies the matrices of a model: what a loop's operations a second are compared with."""

import time
from typing import Any

import torch
from bare_loop import BareLoop, Problem

_SECONDS = 1.0  # of a turn


class MatrixProducts:
    """The products of a step's positions with each matrix of the bare model, and nothing else.

    Args:
        problem: Gives model and positions.
        precision: bf16 or fp32, of factors and results.
    """

    def __init__(self, problem: Problem, precision: str):
        loop = BareLoop(problem, "fp32")
        self._flops = loop.flops()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        positions = sum(len(target) for batch in problem.batches for _, target in batch) // len(problem.batches)
        matrices = [p.detach().to(dtype) for p in loop.model.parameters() if p.ndim == 2 and min(p.shape) > 1]
        self._products = [
            (
                torch.randn(positions, matrix.size(1), dtype=dtype),
                matrix.t(),
                torch.empty(positions, len(matrix), dtype=dtype),
            )
            for matrix in matrices
        ]

    def turn(self) -> float:
        """Multiplies for about a second; returns floating-point operations a second."""
        done, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < _SECONDS:
            for x, matrix, result in self._products:
                torch.mm(x, matrix, out=result)
                done += 2 * x.numel() * matrix.size(1)
        return done / seconds

    def facts(self) -> dict[str, Any]:
        """Operations of the products in a turn of training: those of the bare loop, as torch counts them."""
        return {"flops": self._flops}
