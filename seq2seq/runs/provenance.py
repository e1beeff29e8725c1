"""Where a run came from: command, version, commit, packages, data."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seq2seq import __version__
from seq2seq.system.device import Runtime

PACKAGES = (
    "torch", "torchtext", "sentencepiece", "hydra-core", "omegaconf", "tensorboard", "sacrebleu", "rouge-score",
    "safetensors", "numpy",
)  # fmt: skip


def provenance(fingerprints: Mapping[str, str], runtime: Runtime, *, world_size: int) -> dict[str, Any]:
    """Returns the content of `provenance.json`: what it takes to repeat the run."""
    return {
        # As a user would type it: under Hydra, argv[0] is "seq2seq COMMAND" (cli.hydra_app).
        "command": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".rstrip(),
        "version": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": device_name(runtime),
        "precision": runtime.precision.value,
        "world_size": world_size,
        "packages": {name: _version(name) for name in PACKAGES},
        "sha256": dict(fingerprints),
    }


def environment(runtime: Runtime) -> dict[str, str]:
    """Returns the short form of the provenance, stored with scores."""
    return {
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(runtime),
        "precision": runtime.precision.value,
    }


def device_name(runtime: Runtime) -> str:
    """Returns the GPU's name, or the processor's with the number of threads."""
    if runtime.device.type == "cuda":
        return torch.cuda.get_device_name(runtime.device)
    return f"{runtime.device.type} ({processor()}, {torch.get_num_threads()} threads)"


def processor() -> str:
    """Returns the processor's name as reported by the machine."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Returns the commit of the git checkout of this package, with "+" if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
