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
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Upper bound of log(-gradient of the copy weights): above it, float32 times a float16 loss scale would overflow.
_MAX_LOG_GRADIENT = 60.0


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
    log_odds = _log_odds(weights, F.logsigmoid(-gate_logits), generate_log_probs.gather(1, source.ids))
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
    return _log_odds(weight, F.logsigmoid(-gate_logits), generate_log_probs).sigmoid().squeeze(1)


def _log_odds(weights: Tensor, log_copy: Tensor, generate_log_probs: Tensor) -> Tensor:
    """Log-odds that a token was copied, not generated: log((1 - g) c) - log(g · softmax(z)), [M, *]."""
    tiny = torch.finfo(weights.dtype).tiny
    log_odds = weights.clamp_min(tiny).log() + log_copy - generate_log_probs
    return log_odds.masked_fill(weights == 0, float("-inf"))


class MixtureGradients(NamedTuple):
    """Gradients of the loss with respect to the logit of g [M, 1] and to the attention [M, S], float32."""

    gate_logits: Tensor
    attention: Tensor


def mixture_loss(
    logits: Tensor, labels: Tensor, smoothing: float, *, sums: Tensor, gate_logits: Tensor, copying: CopyDistribution
) -> MixtureGradients:
    """Adds loss, nll and correct to `sums` [3]; overwrites `logits` with their gradient.

    With t the smoothed target distribution and r = g · softmax(z) / p, the posterior that a token was generated
    (1 except at source tokens), the gradients of -Σ_w t_w log p(w) with respect to

        z: R · softmax(z) - t · r,   the logit of g: g - R,   c: -t (1 - g) / p,   where R = Σ_w t_w r_w.

    Args:
        logits: z, [M, V] float32.
        labels: [M] int64.
        smoothing: label smoothing, applied to the mixture.
        sums: see above.
        gate_logits: [M, 1] float32, the logit of g.
        copying: copy distributions of the M positions.
    """
    size, label = logits.size(1), labels.unsqueeze(1)
    weights, source = copying.sum_by_token()
    log_copy = F.logsigmoid(-gate_logits)
    logits.sub_(logits.amax(dim=1, keepdim=True))
    label_logits, mean = logits.gather(1, label), logits.mean(dim=1, keepdim=True)
    source_logits = logits.gather(1, source.ids)
    total = logits.exp_().sum(dim=1, keepdim=True)
    log_scale = F.logsigmoid(gate_logits) - total.log()  # logit + log_scale = log(g · softmax(z))
    log_odds = _log_odds(weights, log_copy, source_logits + log_scale)
    gain, copy_probs = F.softplus(log_odds), log_odds.sigmoid()
    log_p = source_logits + log_scale + gain
    is_label = source.ids == label
    target = is_label * (1 - smoothing) + smoothing / size  # t at the source tokens

    nll = -(label_logits + log_scale).sum() - (gain * is_label).sum()
    uniform_loss = -(mean + log_scale).sum() - gain.sum() / size  # cross-entropy with the uniform distribution
    sums[0] += (1 - smoothing) * nll + smoothing * uniform_loss
    sums[1] += nll
    # The highest logit was shifted to zero, and gain >= 0: p is at least g · softmax(z) everywhere.
    highest = torch.maximum(log_scale, log_p.amax(dim=1, keepdim=True))
    label_log_p = label_logits + log_scale + (gain * is_label).sum(dim=1, keepdim=True)
    sums[2] += (label_log_p >= highest).sum()

    # The target's mass divided into copied and generated by their posterior probabilities.
    copy_mass = target * copy_probs
    generate_mass = 1 - copy_mass.sum(dim=1, keepdim=True)  # R
    logits.mul_(generate_mass / total).sub_(smoothing / size)
    logits.scatter_add_(1, label, torch.full_like(label_logits, smoothing - 1))
    logits.scatter_add_(1, source.ids, copy_mass)
    grad_weights = -target * (log_copy - log_p).clamp_max(_MAX_LOG_GRADIENT).exp()
    return MixtureGradients(gate_logits.sigmoid() - generate_mass, grad_weights.gather(1, source.inverse))
