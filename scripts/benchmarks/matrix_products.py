"""The rate of bare matrix products on this machine, to compare the FLOP/s of a training loop with."""

import time
from typing import Any

import torch
from bare_loop import BareLoop, TrainingTask

from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.families import FAMILIES

_SECONDS = 1.0  # per turn


class MatrixProducts:
    """Multiplies the positions of a step with each weight matrix of the bare model, and does nothing else.

    Args:
        task: Determines the matrices and the number of positions.
        precision: bf16 or fp32, for factors and results.
    """

    def __init__(self, task: TrainingTask, precision: str):
        loop, vocabulary = BareLoop(task, "fp32"), Vocabulary(task.vocab_size, task.vocab_size, joint=True)
        with torch.device("meta"):
            model = build_model(FAMILIES[task.model["family"]](**task.model), vocabulary)
        multiplications = model.multiplications()
        self._flops = sum(
            multiplications.training_flops(*batch.src.shape, batch.tgt_in.size(1), target_tokens=batch.labels.numel())
            for batch in loop.batches
        )
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        positions = sum(len(target) for batch in task.batches for _, target in batch) // len(task.batches)
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
        """Multiplies for about a second; returns floating-point operations per second."""
        flops, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < _SECONDS:
            for x, matrix, result in self._products:
                torch.mm(x, matrix, out=result)
                flops += 2 * x.numel() * matrix.size(1)
        return flops / seconds

    def stats(self) -> dict[str, Any]:
        """Returns the floating-point operations of a training turn, as `seq2seq train` counts them."""
        return {"flops": self._flops}
