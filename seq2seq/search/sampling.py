"""Random draws that depend on nothing but the seed and what is drawn: sentence, sample, step.

A stream of random numbers would make a sentence's samples depend on its neighbours in the batch. Here each
draw hashes its own coordinates instead (a counter-based generator, Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), with the finaliser of SplitMix64 (Steele et al. 2014, "Fast splittable
pseudorandom number generators") as the hash.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.search.config import SearchConfig

# 23 bits: u × total then always rounds to less than total in float32, so that a draw cannot fall off the end.
_BITS = 23


def _signed(value: int) -> int:
    """The int64 with the lowest 64 bits of any integer: tensors wrap around, Python's integers do not."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; PyTorch's own copies the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _FIRST
    value = (value ^ _shift(value, 27)) * _SECOND
    return value ^ _shift(value, 31)


def uniforms(seed: int, step: int, *, numbers: Tensor, samples: int) -> Tensor:
    """Uniform numbers in [0, 1), one for each sentence and sample.

    Args:
        seed: any integer.
        step: which token is drawn.
        numbers: [b] int64, what identifies each sentence.
        samples: how many are drawn for each.

    Returns:
        [b, samples] float32.
    """
    state = _mix(numbers + _signed(seed + _GOLDEN))
    lane = torch.arange(samples, device=numbers.device)
    state = _mix(state.unsqueeze(1) + (lane + 1) * _GOLDEN)
    state = _mix(state + _signed(step * _GOLDEN))
    return _shift(state, 64 - _BITS).float() / (1 << _BITS)


def draw(log_probs: Tensor, uniform: Tensor, config: SearchConfig) -> Tensor:
    """Draws a token [N] from each row of `log_probs` [N, V]: its distribution inverted at `uniform` [N].

    The distribution is sharpened or flattened by the temperature, then cut down to the `top_k` most probable
    tokens, then to the fewest of these that hold a share `top_p` of what is left.
    """
    scaled = log_probs / config.temperature
    tokens: Tensor | None = None
    if 0 < config.top_k < log_probs.size(1):
        scaled, tokens = scaled.topk(config.top_k, dim=1)
    elif config.top_p < 1:
        scaled, tokens = scaled.sort(dim=1, descending=True)
    cumulative = scaled.softmax(dim=1).cumsum(dim=1)
    if config.top_p < 1:
        # Place i stays while less than top_p lies before it; the first always does.
        staying = (cumulative[:, :-1] < config.top_p).sum(dim=1, keepdim=True)
        total = cumulative.gather(1, staying)
    else:
        total = cumulative[:, -1:]
    place = torch.searchsorted(cumulative, uniform.unsqueeze(1) * total, right=True)
    place = place.clamp_(max=cumulative.size(1) - 1)  # beyond it only where the probabilities are NaN
    return place.squeeze(1) if tokens is None else tokens.gather(1, place).squeeze(1)
