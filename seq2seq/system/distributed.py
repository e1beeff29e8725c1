"""Several processes as one: start and end, who decides, and what they exchange.

Without ``torchrun`` there is one process, and everything here costs nothing. Control messages (stop, best, texts) go
over a gloo group of their own, so that they never wait for a GPU.
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
        rank: This process, 0 to size - 1; rank 0 decides and writes.
        size: Number of processes.
        local_rank: This process among those of its machine.
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

        The jobs of a sweep in one process share the first's: torchrun's processes can find each other only once.
        """
        if self.size == 1:
            return
        timeout = timedelta(minutes=timeout_minutes)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=timeout)
        self._control = dist.new_group(backend="gloo", timeout=timeout)

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        received: T = box[0]
        return received

    def max(self, values: Sequence[float]) -> list[float]:
        """The element-wise maximum over all ranks, on every rank."""
        if self.size == 1:
            return list(values)
        box = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self._control)
        largest: list[float] = box.tolist()
        return largest

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum of a CPU tensor over all ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.SUM, group=self._control)
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=self._control)
        return gathered


def leave() -> None:
    """Leaves the process groups, if this process joined any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_from_environment() -> World:
    """The processes as ``torchrun`` describes them in RANK, WORLD_SIZE and LOCAL_RANK; one without it."""
    return World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
