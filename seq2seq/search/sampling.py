"""Sampling whose random numbers depend only on the seed and on what is drawn: sentence, sample, step.

With a sequential generator a sentence's samples would depend on the rest of its batch. Instead, each draw hashes its
own coordinates (a counter-based generator, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), with
SplitMix64 as the hash.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.search.config import SearchConfig
from seq2seq.system.splitmix64 import GOLDEN_GAMMA, mix64, shift_right, wrap_int64

# With 23 bits, u × total always rounds to less than total in float32, so a draw never falls beyond the last token.
_BITS = 23


def uniforms(seed: int, step: int, *, sentence_indices: Tensor, num_samples: int) -> Tensor:
    """Returns uniform random numbers in [0, 1), one per sentence and sample.

    Args:
        seed: any integer.
        step: index of the token that is drawn.
        sentence_indices: [b] int64, identifies each sentence.
        num_samples: number of samples per sentence.

    Returns:
        [b, num_samples] float32.
    """
    state = mix64(sentence_indices + wrap_int64(seed + GOLDEN_GAMMA))
    sample_indices = torch.arange(num_samples, device=sentence_indices.device)
    state = mix64(state.unsqueeze(1) + (sample_indices + 1) * GOLDEN_GAMMA)
    state = mix64(state + wrap_int64(step * GOLDEN_GAMMA))
    return shift_right(state, 64 - _BITS).float() / (1 << _BITS)


def draw(log_probs: Tensor, uniform: Tensor, config: SearchConfig) -> Tensor:
    """Draws one token [N] per row of `log_probs` [N, V], by inverting the cumulative distribution at `uniform` [N].

    The distribution is rescaled by the temperature, then restricted to the `top_k` most probable tokens, then to the
    fewest of these whose share of the remaining probability reaches `top_p`.
    """
    scaled = log_probs / config.temperature
    tokens: Tensor | None = None
    if 0 < config.top_k < log_probs.size(1):
        scaled, tokens = scaled.topk(config.top_k, dim=1)
    elif config.top_p < 1:
        scaled, tokens = scaled.sort(dim=1, descending=True)
    cumulative = scaled.softmax(dim=1).cumsum(dim=1)
    if config.top_p < 1:
        # Token i is in the nucleus while the tokens before it hold less than top_p; the first always is.
        last = (cumulative[:, :-1] < config.top_p).sum(dim=1, keepdim=True)
        total = cumulative.gather(1, last)
    else:
        total = cumulative[:, -1:]
    index = torch.searchsorted(cumulative, uniform.unsqueeze(1) * total, right=True)
    index = index.clamp_(max=cumulative.size(1) - 1)  # out of range only if the probabilities are NaN
    return index.squeeze(1) if tokens is None else tokens.gather(1, index).squeeze(1)
