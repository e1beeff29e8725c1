"""Device and precision, as users name them."""

from enum import Enum


class Device(str, Enum):
    """The device; ``auto`` takes CUDA, then MPS, then the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(str, Enum):
    """Number format of matrix products; ``auto`` takes bf16 where the hardware multiplies it natively."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
