"""Device, precision, memory, seeds and flags, as torch and the kernel see them."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.system.config import Device, Precision
from seq2seq.system.device import (
    Runtime,
    build_runtime,
    deterministic,
    exact_fp32,
    free_memory,
    is_out_of_memory,
    process_peak_mb,
    seed_step,
)

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def of_machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("mps", "kind"), [(False, "cpu"), (True, "mps")])
def test_auto_takes_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, mps: bool, kind: str) -> None:
    of_machine(monkeypatch, gpus=0, mps=mps)
    assert build_runtime(Device.auto, Precision.fp32) == Runtime(torch.device(kind), Precision.fp32)
    assert build_runtime(Device.cpu, Precision.fp16) == Runtime(CPU, Precision.fp16), "what is asked for comes first"


@pytest.mark.parametrize("device", [Device.cuda, Device.mps])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    of_machine(monkeypatch, gpus=0, mps=False)
    with pytest.raises(UserError, match=rf"trainer\.device={device.value}: no such device .*trainer\.device=auto"):
        build_runtime(device, Precision.auto)


@pytest.mark.parametrize("device", [Device.auto, Device.cuda])
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    of_machine(monkeypatch, gpus=2, mps=True)
    with pytest.raises(UserError, match=r"process 3 .* has 2 GPUs; use --nproc-per-node=2 or trainer\.device=cpu"):
        build_runtime(device, Precision.fp32, local_rank=2)


@on_linux
@pytest.mark.skipif("flags" not in Path("/proc/cpuinfo").read_text(), reason="another kind of processor")
def test_auto_computes_in_bf16_where_the_processor_multiplies_it() -> None:
    flags = re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    expected = Precision.bf16 if "avx512_bf16" in flags else Precision.fp32
    assert build_runtime(Device.cpu, Precision.auto).precision is expected


def test_auto_computes_in_fp32_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, gpus=0, mps=True)
    assert build_runtime(Device.mps, Precision.auto).precision is Precision.fp32


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(Precision.fp32, torch.float32), (Precision.bf16, torch.bfloat16), (Precision.fp16, torch.float16)],
)
def test_products_are_in_the_precision_and_parameters_in_float32(precision: Precision, dtype: torch.dtype) -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with Runtime(CPU, precision).autocast():
        assert layer(x).dtype is dtype
    assert layer.weight.dtype is torch.float32
    assert layer(x).dtype is torch.float32, "outside nothing is left of it"
    assert not Runtime(CPU, precision).pinned


def test_memory_that_ran_out_is_known_by_its_errors() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_python:
        bytearray(1 << 60)
    assert is_out_of_memory(of_torch.value)
    assert is_out_of_memory(of_python.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(shapes.value)
    assert not is_out_of_memory(OSError("Cannot allocate memory"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def test_seeds_of_neighbouring_steps_and_ranks_share_nothing() -> None:
    """Nor do other orders of the same numbers; and each is what it was."""

    def drawn(seed: int, step: int, rank: int = 0) -> tuple[float, ...]:
        seed_step(seed, step, rank)
        return tuple(torch.rand(4).tolist())

    places = [(seed, step, rank) for seed in (0, 1, 2) for step in (-1, 0, 1, 2, 1000) for rank in (0, 1, 2)]
    first = [drawn(*place) for place in places]
    assert len({value for values in first for value in values}) == 4 * len(places)
    assert [drawn(*place) for place in reversed(places)] == first[::-1]
    assert drawn(1, 2) == drawn(1, 2, 0)
    seeds = set()
    for step in range(500):
        seed_step(7, step)
        seeds.add(torch.initial_seed())
    assert len({seed >> 31 for seed in seeds}) == len({seed % 2**31 for seed in seeds}) == 500, "all bits change"


def test_seeds_are_mixed_by_splitmix64() -> None:
    """Steele et al. (2014); the first output for the seed 0 is published with the reference implementation."""

    def splitmix64(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert splitmix64(0) == 0xE220A8397B1DCDAF
    for seed, step, rank in ((0, 0, 0), (5, 17, 3), (2**63 - 1, -1, 1)):
        seed_step(seed, step, rank)
        assert torch.initial_seed() == splitmix64(splitmix64(splitmix64(seed) + step) + rank) % 2**63


@pytest.mark.parametrize("before", [False, True])
def test_determinism_is_for_a_time(before: bool) -> None:
    torch.use_deterministic_algorithms(before)
    try:
        with deterministic(True):
            assert torch.are_deterministic_algorithms_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        assert torch.are_deterministic_algorithms_enabled() == before
        with pytest.raises(ZeroDivisionError), deterministic(True):
            raise ZeroDivisionError
        assert torch.are_deterministic_algorithms_enabled() == before
        with deterministic(False):
            assert torch.are_deterministic_algorithms_enabled() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_only_errors_of_determinism_are_told_as_such() -> None:
    with pytest.raises(RuntimeError, match="something else"), deterministic(True):
        raise RuntimeError("something else")
    message = "put_ has no deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'"
    with (
        pytest.raises(UserError, match=r"trainer\.deterministic=true is not supported here: put_"),
        deterministic(True),
    ):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="put_"), deterministic(False):
        raise RuntimeError(message)


def test_exact_products_are_for_a_time() -> None:
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        with exact_fp32():
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == "tf32"
        with pytest.raises(ZeroDivisionError), exact_fp32():
            raise ZeroDivisionError
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = before


def said(code: str, **environment: str) -> list[str]:
    """The words that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return done.stdout.split()


def test_threads_are_those_asked_for_and_otherwise_torchs_own() -> None:
    code = (
        "import torch\nown = torch.get_num_threads()\nfrom seq2seq.system.device import set_threads\n"
        "for threads in (3, None, 1, None):\n    set_threads(threads)\n    print(torch.get_num_threads() - own)"
    )
    assert said(code, OMP_NUM_THREADS="2") == ["1", "0", "-1", "0"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps what it wants")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """By the page faults of taking the same 40 MiB again and again, 10,240 each time unless they are still there."""
    code = (
        "import resource, torch\nfrom seq2seq.system.device import keep_freed_memory\nkeep_freed_memory()\n"
        "def taken(times):\n    for _ in range(times):\n        torch.ones(10 << 20)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "print(-taken(20) + taken(5))"
    )
    assert int(said(code, OMP_NUM_THREADS="1")[0]) < 500


def test_memory_is_given_back_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    free_memory(CPU)
    assert not given_back
    free_memory(torch.device("cuda"))
    assert given_back == [True]


@on_linux
def test_the_peak_is_the_kernels() -> None:
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024
    assert process_peak_mb() == pytest.approx(peak, rel=0.05)
    assert Runtime(CPU, Precision.fp32).peak_memory_mb() == pytest.approx(peak, rel=0.05)


@pytest.mark.gpu
def test_a_gpu_is_taken_by_its_number_and_computes_in_bf16() -> None:
    runtime = build_runtime(Device.auto, Precision.auto)
    assert runtime.device == torch.device("cuda", 0)
    assert runtime.pinned
    assert (runtime.precision is Precision.bf16) == (torch.cuda.get_device_capability(0) >= (8, 0))
    torch.empty(64 << 20, dtype=torch.uint8, device=runtime.device)
    assert runtime.peak_memory_mb() >= 64
