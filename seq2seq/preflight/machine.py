"""What the machine has to offer a run: memory, disk, GPUs."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

_CGROUP = Path("/sys/fs/cgroup")  # of the control group that a container's processes see as the root


def available_memory(device: torch.device, *, cgroup: Path = _CGROUP) -> int:
    """Bytes that a process could take now: of the GPU, or of main memory within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _number(cgroup / "memory.max")
    used = _number(cgroup / "memory.current")
    return free if limit is None or used is None else min(free, max(limit - used, 0))


def _number(path: Path) -> int | None:
    """The number in a file of the kernel's; None if it says "max", or there is no such file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def gpus() -> list[dict[str, Any]]:
    """Name, bytes of memory and bytes free of each GPU."""
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append({"name": torch.cuda.get_device_name(number), "memory": total, "free": free})
    return found


def free_disk(path: Path) -> int:
    """Bytes that this user can still write below a path, which need not exist."""
    return shutil.disk_usage(_existing(path)).free


def why_not_writable(path: Path) -> str | None:
    """Why a folder, which need not exist, cannot be written to; None if it can. Nothing is left behind.

    Permissions tell too little (a read-only file system, a full quota), so a file without a name is made.
    """
    folder = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
