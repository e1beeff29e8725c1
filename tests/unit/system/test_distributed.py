"""What processes exchange, in two real ones; and that one alone needs nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.system.distributed import World, destroy_process_groups, world_from_environment

WORKER = """
import json, os, sys, time
from pathlib import Path
import torch
import torch.distributed as dist
from seq2seq.system.distributed import World, destroy_process_groups, world_from_environment

folder, world = Path(sys.argv[1]), world_from_environment()
world.start("cpu", timeout_minutes=1)
rank = world.rank
if rank == 1:
    time.sleep(0.5)
    (folder / "late").touch()
world.barrier()
found = {
    "rank": [rank, world.size, world.local_rank, world.is_main],
    "after the barrier": (folder / "late").exists(),
    "max": world.max([rank, -rank, 0.1]),
    "sum": world.sum(torch.tensor([1.0, 10.0 * rank + 2**-40], dtype=torch.float64)).tolist(),
    "gather": world.gather({"rank": rank, "texts": ["ü"] * rank}),
    "broadcast": world.broadcast(["of", rank]),
}
another = World(rank, world.size)  # the next job of a sweep
another.start("cpu", timeout_minutes=1)
found["another job"] = another.gather(rank)
destroy_process_groups()
found["left"] = not dist.is_initialized()
(folder / f"{rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_exchange_numbers_and_objects(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "worker.py",
         tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert (first.pop("rank"), second.pop("rank")) == ([0, 2, 0, True], [1, 2, 1, False])
    assert first == second == {
        "after the barrier": True,
        "max": [1.0, 0.0, 0.1],
        "sum": [2.0, 10.0 + 2**-39],
        "gather": [{"rank": 0, "texts": []}, {"rank": 1, "texts": ["ü"]}],
        "broadcast": ["of", 0],
        "another job": [0, 1],
        "left": True,
    }  # fmt: skip


def test_one_process_needs_nobody() -> None:
    world = World()
    world.start("cpu", timeout_minutes=1)
    world.barrier()
    assert not torch.distributed.is_initialized()
    values, tensor, anything = [2.0, -1.0], torch.tensor([1.0, 2.0]), object()
    assert world.is_main
    assert world.max(values) == values
    assert world.sum(tensor) is tensor
    assert world.broadcast(anything) is anything
    assert world.gather(anything) == [anything]
    destroy_process_groups()


def test_control_messages_never_go_by_the_group_of_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be NCCL's, for whose turn a rank waits until its GPU has nothing else to do."""
    control, used = object(), []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend, timeout: control if backend == "gloo" else None)
    for name in ("barrier", "broadcast_object_list", "all_reduce", "all_gather_object"):
        monkeypatch.setattr(
            torch.distributed, name, lambda *args, group=None, name=name, **options: used.append((name, group))
        )
    world = World(0, 2)
    world.start("cuda", timeout_minutes=1)
    world.barrier()
    world.broadcast(1)
    world.max([1.0])
    world.sum(torch.ones(1))
    world.gather(1)
    assert len(used) == 5
    assert {group for _, group in used} == {control}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, (0, 1, 0)), ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (5, 8, 1))],
)
def test_the_processes_are_those_of_torchrun(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, ...]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    world: Any = world_from_environment()
    assert (world.rank, world.size, world.local_rank) == expected
    assert world.is_main == (expected[0] == 0)
