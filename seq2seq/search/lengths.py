"""What the lengths of sources and hypotheses decide: limits, and the normalisation of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.search.config import LengthNormalization, SearchConfig

# With max_length_ratio a hypothesis has at most this + ratio × source tokens: short sources get room.
RATIO_ALLOWANCE = 10


def normalizer(lengths: Tensor, config: SearchConfig) -> Tensor:
    """The divisor of log-probabilities of hypotheses of `lengths` tokens (same shape, float32, >= 1)."""
    lengths = lengths.to(torch.float32)
    if config.length_normalization is LengthNormalization.wu:
        return ((5.0 + lengths) / 6.0) ** config.length_penalty
    if config.length_normalization is LengthNormalization.average:
        return lengths**config.length_penalty
    return torch.ones_like(lengths)


def length_limits(source_lengths: Tensor, config: SearchConfig) -> Tensor:
    """The most tokens [B] int64 a hypothesis may have, for sources of `source_lengths` [B] tokens."""
    limits = torch.full_like(source_lengths, config.max_length)
    if config.max_length_ratio is None:
        return limits
    # float64 so that whole products stay whole; clamped first because int64 cannot hold any float.
    room = (source_lengths.double().cpu() * config.max_length_ratio).clamp(max=float(config.max_length))
    return torch.minimum(limits, RATIO_ALLOWANCE + room.long().to(limits.device))
