"""Copying source tokens: the pointer-generator network of See et al. (2017, section 2.2, arXiv:1704.04368).

The next token is generated from the vocabulary with probability g; otherwise it is copied from a source position drawn
from the attention weights:

    p(w) = g · softmax(z)_w + (1 - g) · c_w,   c_w = Σ_{i: source token i is w} a_i        (their eq. 9)

With a joint subword vocabulary there is no extended vocabulary: each source token has an id. g is a logistic function
of the decoder's features; differs from their eq. 8, which reads context, state and input, because the features depend
on all three.

c is zero except at the source's tokens. There, p is g · softmax(z) times exp(gain), with
gain = softplus(log((1 - g) c) - log(g · softmax(z))); elsewhere the gain is zero. So the mixture costs S numbers per
target position in addition to the V of softmax(z), and never takes the logarithm of a probability that may be zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class SourceTokens:
    """The distinct tokens of each source of a batch, for summing the attention to all occurrences of a token.

    Attributes:
        ids: [B, U] int64, the distinct ids of each source, padded with zeros to U = S.
        inverse: [B, S] int64, the index into `ids` of the token at each position.
    """

    ids: Tensor
    inverse: Tensor

    @classmethod
    def from_ids(cls, src: Tensor) -> SourceTokens:
        """Computes the distinct tokens of source ids [B, S] int64, as `torch.unique` does for each row."""
        ordered, order = src.sort(dim=1)
        changes = torch.zeros_like(ordered)
        changes[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        ranks = changes.cumsum(dim=1)
        inverse = torch.empty_like(ranks).scatter_(1, order, ranks)
        return cls(torch.zeros_like(src).scatter_(1, ranks, ordered), inverse)

    def select(self, sentences: Tensor) -> SourceTokens:
        """The tokens of `sentences` [M] int64."""
        return SourceTokens(self.ids.index_select(0, sentences), self.inverse.index_select(0, sentences))


@dataclass
class CopyDistribution:
    """The distribution over source positions that M target positions copy from.

    Attributes:
        attention: [M, S] float32, rows sum to one.
        sentences: [M] int64, the index into the batch of each position's source.
        source: the tokens of the whole batch, [B, ...].
    """

    attention: Tensor
    sentences: Tensor
    source: SourceTokens

    @classmethod
    def from_attention(cls, attention: Tensor, source: SourceTokens) -> CopyDistribution:
        """Builds it from attention [*, S] whose flattened rows belong to the B sources in order, M / B to each."""
        weights = attention.flatten(0, -2)
        batch_size = source.ids.size(0)
        sentences = torch.arange(batch_size, device=weights.device)
        return cls(weights, sentences.repeat_interleave(weights.size(0) // batch_size), source)

    def rows(self, index: Tensor) -> CopyDistribution:
        """Selects the target positions `index` [M'] int64."""
        return CopyDistribution(
            self.attention.index_select(0, index), self.sentences.index_select(0, index), self.source
        )

    def chunk(self, rows: slice) -> CopyDistribution:
        """Selects a slice of target positions, as views."""
        return CopyDistribution(self.attention[rows], self.sentences[rows], self.source)

    def sum_by_token(self) -> tuple[Tensor, SourceTokens]:
        """The attention summed by distinct token, c [M, U] float32, and these tokens, [M, ...]."""
        source = self.source.select(self.sentences)
        summed = torch.zeros_like(self.attention).scatter_add(1, source.inverse, self.attention)
        return summed, source


def mixture_log_probs(vocab_log_probs: Tensor, gate_logits: Tensor, copying: CopyDistribution) -> Tensor:
    """Log-probabilities [M, V] of the mixture, float32.

    Args:
        vocab_log_probs: [M, V] float32, log softmax(z).
        gate_logits: [M, 1] float32, the logit of g.
        copying: copy distributions of the M positions.
    """
    weights, source = copying.sum_by_token()
    generate_log_probs = vocab_log_probs + F.logsigmoid(gate_logits)
    log_odds = copy_log_odds(weights, F.logsigmoid(-gate_logits), generate_log_probs.gather(1, source.ids))
    return generate_log_probs.scatter_add(1, source.ids, F.softplus(log_odds))


def copy_posterior(vocab_log_probs: Tensor, gate_logits: Tensor, copying: CopyDistribution, tokens: Tensor) -> Tensor:
    """Probability (1 - g) c_w / p(w) that the token w was copied, [M] float32.

    Args:
        vocab_log_probs: [M, V] float32, log softmax(z).
        gate_logits: [M, 1] float32, the logit of g.
        copying: copy distributions of the M positions.
        tokens: [M] int64, the token w of each position.
    """
    weights, source = copying.sum_by_token()
    label = tokens.unsqueeze(1)
    weight = (weights * (source.ids == label)).sum(dim=1, keepdim=True)
    generate_log_probs = vocab_log_probs.gather(1, label) + F.logsigmoid(gate_logits)
    return copy_log_odds(weight, F.logsigmoid(-gate_logits), generate_log_probs).sigmoid().squeeze(1)


def copy_log_odds(weights: Tensor, log_copy: Tensor, generate_log_probs: Tensor) -> Tensor:
    """Log-odds that a token was copied, not generated: log((1 - g) c) - log(g · softmax(z)), [M, *]."""
    tiny = torch.finfo(weights.dtype).tiny
    log_odds = weights.clamp_min(tiny).log() + log_copy - generate_log_probs
    return log_odds.masked_fill(weights == 0, float("-inf"))
