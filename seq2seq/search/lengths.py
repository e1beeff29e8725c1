"""Length limits of hypotheses, and the length normalisation of their scores."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.search.config import LengthNormalization, SearchConfig

# With max_length_ratio a hypothesis has at most this + ratio × source tokens, so that short sources are not cut off.
RATIO_OFFSET = 10


def normalizer(lengths: Tensor, config: SearchConfig) -> Tensor:
    """Returns what to divide the log-probabilities of hypotheses of `lengths` tokens by (same shape, float32, >= 1)."""
    lengths = lengths.to(torch.float32)
    if config.length_normalization is LengthNormalization.wu:
        return ((5.0 + lengths) / 6.0) ** config.length_penalty
    if config.length_normalization is LengthNormalization.average:
        return lengths**config.length_penalty
    return torch.ones_like(lengths)


def length_limits(source_lengths: Tensor, config: SearchConfig) -> Tensor:
    """Returns the maximum length [B] int64 of hypotheses, in tokens, for sources of `source_lengths` [B] tokens."""
    limits = torch.full_like(source_lengths, config.max_length)
    if config.max_length_ratio is None:
        return limits
    # float64 represents products that are whole numbers exactly; clamped first because int64 cannot hold every float.
    scaled = (source_lengths.double().cpu() * config.max_length_ratio).clamp(max=float(config.max_length))
    return torch.minimum(limits, RATIO_OFFSET + scaled.long().to(limits.device))
