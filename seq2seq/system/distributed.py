"""Distributed training: process groups, ranks, and collective operations.

Without ``torchrun`` there is one process, and everything here is a no-op. Whatever is exchanged
besides gradients (stop requests, scores, generated texts) uses a separate gloo group, so that it never waits for a GPU.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class World:
    """The processes of a run.

    Attributes:
        rank: Rank of this process, 0 to size - 1; rank 0 decides and writes.
        size: Number of processes (world size).
        local_rank: Rank of this process among those of its machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0):
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._control: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def start(self, device_type: str, *, timeout_minutes: float) -> None:
        """Joins the process groups: NCCL on CUDA devices, gloo elsewhere.

        The jobs of a sweep in one process share the default group, with the first job's timeout: torchrun supports one
        rendezvous only.
        """
        if self.size == 1:
            return
        timeout = timedelta(minutes=timeout_minutes)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=timeout)
        self._control = dist.new_group(backend="gloo", timeout=timeout)

    def barrier(self) -> None:
        """Waits until every process has reached this call."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def broadcast(self, value: T) -> T:
        """Returns the value of rank 0 on every rank."""
        if self.size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, src=0, group=self._control)
        return objects[0]

    def max(self, values: Sequence[float]) -> list[float]:
        """Returns the element-wise maximum over all ranks on every rank."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._control)
        maxima: list[float] = tensor.tolist()
        return maxima

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the element-wise sum of a CPU tensor over all ranks on every rank; may modify it in place."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.SUM, group=self._control)
        return values

    def gather(self, value: T) -> list[T]:
        """Returns the values of all ranks, ordered by rank, on every rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=self._control)
        return gathered


def destroy_process_groups() -> None:
    """Destroys the process groups, if this process joined any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_from_environment() -> World:
    """Reads RANK, WORLD_SIZE and LOCAL_RANK of ``torchrun``; without it there is one process."""
    return World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
