"""The best continuations of all beams of a sentence, without sorting the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

# Columns of a chunk. With K × V numbers and 2K wanted, K V / C maxima and 2 K C members are looked at;
# the sum is smallest at C = sqrt(V / 2), 64 for 8,000 tokens, and flat around it.
_CHUNK = 64


def best_token(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """The highest log-probability [N] of each row of [N, V], and its token [N], the first of equal ones.

    Where the highest chunk is, then which member it is: the CPU finds a maximum many times as fast as its place.
    """
    chunk = _chunk_maxima(log_probs).argmax(dim=1, keepdim=True)
    tokens = chunk * _CHUNK + torch.arange(_CHUNK, device=log_probs.device)
    tokens = tokens.clamp_(max=log_probs.size(1) - 1)
    value, place = log_probs.gather(1, tokens).max(dim=1, keepdim=True)
    return value.squeeze(1), tokens.gather(1, place).squeeze(1)


def best_candidates(log_probs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best continuations of each sentence, best first.

    The vocabulary is cut into chunks. The best `count` entries lie in the `count` chunks with the highest
    maxima, so only the members of these are compared.

    Args:
        log_probs: [B × K, V] of the next token.
        scores: [B, K] log-probability of each beam so far; -inf for a beam that does not exist.
        count: how many; continuations that do not exist have log-probability -inf.

    Returns:
        log-probability of beam and token together, beam, token: each [B, count].
    """
    sentences, width = scores.shape
    vocabulary = log_probs.size(1)
    chunks = -(-vocabulary // _CHUNK)
    if chunks * width <= count:
        return _best_of_all(log_probs, scores, count)
    maxima = _chunk_maxima(log_probs).view(sentences, width, chunks) + scores.unsqueeze(2)
    chosen = maxima.flatten(1).topk(count, dim=1, sorted=False).indices  # [B, count]
    beams = chosen // chunks
    first = (chosen - beams * chunks) * _CHUNK
    tokens = first.unsqueeze(2) + torch.arange(_CHUNK, device=scores.device)  # [B, count, C]
    beyond = tokens >= vocabulary
    tokens = tokens.clamp_(max=vocabulary - 1)
    rows = torch.arange(sentences, device=scores.device).unsqueeze(1) * width + beams
    members = log_probs.flatten().take(rows.unsqueeze(2) * vocabulary + tokens)
    members = (members + scores.gather(1, beams).unsqueeze(2)).masked_fill_(beyond, float("-inf"))
    values, places = members.flatten(1).topk(count, dim=1)
    return values, beams.gather(1, places // _CHUNK), tokens.flatten(1).gather(1, places)


def _chunk_maxima(log_probs: Tensor) -> Tensor:
    """The highest of each `_CHUNK` columns of [N, V], the last chunk maybe smaller: [N, chunks]."""
    whole = log_probs.size(1) // _CHUNK
    maxima = log_probs[:, : whole * _CHUNK].reshape(log_probs.size(0), whole, _CHUNK).amax(dim=2)
    if whole * _CHUNK < log_probs.size(1):
        maxima = torch.cat([maxima, log_probs[:, whole * _CHUNK :].amax(dim=1, keepdim=True)], dim=1)
    return maxima


def _best_of_all(log_probs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """`best_candidates` by comparing everything; fills up when there are fewer than `count`."""
    sentences, width = scores.shape
    vocabulary = log_probs.size(1)
    values = (log_probs.view(sentences, width, vocabulary) + scores.unsqueeze(2)).flatten(1)
    missing = count - values.size(1)
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=float("-inf"))
    values, places = values.topk(count, dim=1)
    places = places.masked_fill(values == float("-inf"), 0)
    return values, places // vocabulary, places % vocabulary
