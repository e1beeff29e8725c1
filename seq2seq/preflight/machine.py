"""Resources of the machine: memory, disk, GPUs."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

_CGROUP = Path("/sys/fs/cgroup")  # the control group that a container's processes see as the root


def available_memory(device: torch.device, *, cgroup: Path = _CGROUP) -> int:
    """Returns the bytes that a process could allocate now: on the GPU, or in main memory within the container limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _read_int(cgroup / "memory.max")
    used = _read_int(cgroup / "memory.current")
    return free if limit is None or used is None else min(free, max(limit - used, 0))


def _read_int(path: Path) -> int | None:
    """Reads the integer in a cgroup file; None if it says "max" or there is no such file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def gpus() -> list[dict[str, Any]]:
    """Returns the name, bytes of memory and free bytes of each GPU."""
    memory = map(torch.cuda.mem_get_info, range(torch.cuda.device_count()))
    return [
        {"name": torch.cuda.get_device_name(index), "memory": total, "free": free}
        for index, (free, total) in enumerate(memory)
    ]


def free_disk(path: Path) -> int:
    """Returns the bytes that this user can still write below a path, which need not exist."""
    return shutil.disk_usage(_nearest_existing(path)).free


def write_error(path: Path) -> str | None:
    """Returns why a folder, which need not exist, cannot be written to; None if it can. Leaves nothing behind.

    Creates an unnamed file, since permissions do not show a read-only file system or a full quota.
    """
    folder = _nearest_existing(path)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None


def _nearest_existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
