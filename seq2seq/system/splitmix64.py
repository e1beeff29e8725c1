"""SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"): hashes coordinates to 64 bits.

Python integers and int64 tensors share the code: addition, multiplication and xor give the low 64 bits of the result
from the low 64 bits of the operands. A tensor drops the others; an integer keeps them, for the caller to mask.
"""

from typing import TypeVar

from torch import Tensor

Bits = TypeVar("Bits", int, Tensor)


def wrap_int64(value: int) -> int:
    """Wraps an integer to int64, which arithmetic with int64 tensors requires."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


GOLDEN_GAMMA = wrap_int64(0x9E3779B97F4A7C15)  # the increment of the generator's state
_MULTIPLIER_1 = wrap_int64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = wrap_int64(0x94D049BB133111EB)


def mix64(value: Bits) -> Bits:
    """Returns the generator's output for a state; of an integer's result, only the low 64 bits have a meaning."""
    value = (value ^ shift_right(value, 30)) * _MULTIPLIER_1
    value = (value ^ shift_right(value, 27)) * _MULTIPLIER_2
    return value ^ shift_right(value, 31)


def shift_right(value: Bits, bits: int) -> Bits:
    """Shifts the low 64 bits right and fills with zeros; ``>>`` alone copies the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
