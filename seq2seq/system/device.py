"""Device, precision, threads, seeds and memory."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from seq2seq.errors import UserError
from seq2seq.system.config import Device, Precision
from seq2seq.system.splitmix64 import GOLDEN_GAMMA, mix64


@dataclass(frozen=True)
class Runtime:
    """A resolved device and precision.

    Attributes:
        device: Device of the tensors.
        precision: Never ``auto``.
    """

    device: torch.device
    precision: Precision

    def autocast(self) -> AbstractContextManager[object]:
        """Returns a context in which matrix products run in this precision; parameters stay float32."""
        if self.precision is Precision.fp32:
            return nullcontext()
        dtype = torch.bfloat16 if self.precision is Precision.bf16 else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    @property
    def pinned(self) -> bool:
        """Whether batches are copied from pinned memory, which CUDA does asynchronously."""
        return self.device.type == "cuda"

    def peak_memory_mb(self) -> float:
        """Returns the peak memory so far in MiB: of the GPU if there is one, else of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return process_peak_mb()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a GPU or the CPU is out of memory.

    Torch has an error type for GPUs only; its CPU allocator raises a RuntimeError that names the allocator.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def free_memory(device: torch.device) -> None:
    """Releases cached blocks of a GPU, so that the next attempt is not hindered by fragmentation."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def process_peak_mb() -> float:
    """Returns the peak resident memory of this process so far, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB elsewhere


def build_runtime(device: Device, precision: Precision, *, local_rank: int = 0) -> Runtime:
    """Resolves ``auto`` values and checks that the machine supports the device and precision.

    Raises:
        UserError: If the device does not exist, or does not support the precision.
    """
    resolved = _resolve_device(device, local_rank)
    if resolved.type == "cuda":
        torch.cuda.set_device(resolved)
        # cuDNN attention returns NaN gradients with a mask on Hopper GPUs in torch 2.11 to 2.13 (pytorch issue 196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.matmul.fp32_precision = "tf32" if precision is not Precision.fp32 else "ieee"
    if precision is Precision.auto:
        precision = Precision.bf16 if _native_bf16(resolved) else Precision.fp32
    if precision is Precision.bf16 and resolved.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("trainer.precision=bf16: this GPU does not support bf16; use fp16 or fp32")
    return Runtime(resolved, precision)


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Within the context, GPUs compute float32 products exactly, not in TF32, whose mantissa has 10 bits."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.rnn]  # torch does not type these
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _resolve_device(device: Device, local_rank: int) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name in available if available[name]) if device is Device.auto else device.value
    if not available[kind]:
        raise UserError(f"trainer.device={kind}: no such device on this machine; use trainer.device=auto")
    if kind != "cuda":
        return torch.device(kind)
    if local_rank >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            f"torchrun started process {local_rank + 1} of this machine, but it has {count} GPUs; "
            f"use --nproc-per-node={count} or trainer.device=cpu"
        )
    return torch.device("cuda", local_rank)


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older GPUs emulate it
    if device.type == "cpu":
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe is not None and probe())
    return False


_DEFAULT_THREADS = torch.get_num_threads()


def set_threads(threads: int | None) -> None:
    """Sets the number of CPU threads of tensor operations; None restores the default of torch."""
    torch.set_num_threads(_DEFAULT_THREADS if threads is None else threads)


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks instead of returning them to the kernel.

    Training frees and allocates the same large blocks at each step; returning them costs a page fault per 4 KiB, a
    third of the time of a step on a CPU. A no-op if the C library has no ``mallopt``.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # from malloc.h
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)
        mallopt(m_top_pad, 64 << 20)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seeds the generators of torch for one optimizer step of one rank.

    Randomness within a step (dropout) is thus a pure function of (seed, step, rank), and a resume has no generator
    state to restore. The three are hashed so that neighbouring steps and ranks are uncorrelated.
    """
    state = 0
    for value in (seed, step, rank):
        state = mix64(state + value + GOLDEN_GAMMA)
    torch.manual_seed(state & (2**63 - 1))


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Within the context, torch refuses operations that have no deterministic kernel, if `enabled`.

    Raises:
        UserError: If such an operation is called.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if enabled and "torch.use_deterministic_algorithms" in str(error):  # torch has no type for this error
            raise UserError(f"trainer.deterministic=true is not supported here: {error}") from error
        raise
    finally:
        torch.use_deterministic_algorithms(before)
