"""Copying source tokens: the pointer-generator network of See et al. (2017, section 2.2, arXiv:1704.04368).

The next token is generated with probability g and copied from a source position drawn from the attention
weights otherwise:

    p(w) = g · softmax(z)_w + (1 - g) · c_w,   c_w = Σ_{i: source token i is w} a_i        (their eq. 9)

Over subwords of one vocabulary there is nothing to extend it by: each source token has an id. g is a logistic function
of the decoder's features; differs from their eq. 8, which reads context, state and input side by side, because the
features have read all three.

c is zero but at a source's own tokens. There p is g · softmax(z) times exp(gain), the gain being
softplus(log((1 - g) c) - log(g · softmax(z))), and elsewhere the gain is zero: the mixture costs S numbers a
target position beside the V that generating costs, and no probability is ever taken the logarithm of that
could be zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A gradient of the copy weights is at most exp of this; beyond it, float32 times a float16 loss scale would overflow.
_LARGEST_LOG_GRADIENT = 60.0


@dataclass
class SourceTokens:
    """The distinct tokens of each source of a batch, so that a token's occurrences add up.

    Attributes:
        ids: [B, U] int64, the distinct ids of each source, U = S; the places that are left over hold zeros.
        places: [B, S] int64, where in `ids` the token of each position is.
    """

    ids: Tensor
    places: Tensor

    @classmethod
    def of(cls, src: Tensor) -> SourceTokens:
        """Of source ids [B, S] int64."""
        ordered, order = src.sort(dim=1)
        changes = torch.zeros_like(ordered)
        changes[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        ranks = changes.cumsum(dim=1)
        places = torch.empty_like(ranks).scatter_(1, order, ranks)
        return cls(torch.zeros_like(src).scatter_(1, ranks, ordered), places)

    def take(self, sentences: Tensor) -> SourceTokens:
        """Those of `sentences` [M] int64."""
        return SourceTokens(self.ids.index_select(0, sentences), self.places.index_select(0, sentences))


@dataclass
class Copying:
    """What M target positions may copy.

    Attributes:
        attention: [M, S] float32, rows sum to one.
        sentences: [M] int64, whose source each position reads.
        source: of the whole batch, [B, ...].
    """

    attention: Tensor
    sentences: Tensor
    source: SourceTokens

    @classmethod
    def evenly(cls, attention: Tensor, source: SourceTokens) -> Copying:
        """Of attention [*, S] whose rows belong to the sources in order, equally many to each."""
        weights = attention.flatten(0, -2)
        count = source.ids.size(0)
        owners = torch.arange(count, device=weights.device)
        return cls(weights, owners.repeat_interleave(weights.size(0) // count), source)

    def rows(self, index: Tensor) -> Copying:
        """The positions `index` [M'] int64."""
        return Copying(self.attention.index_select(0, index), self.sentences.index_select(0, index), self.source)

    def part(self, rows: slice) -> Copying:
        """A run of positions, without a copy."""
        return Copying(self.attention[rows], self.sentences[rows], self.source)

    def weights(self) -> tuple[Tensor, SourceTokens]:
        """The attention c to each distinct token, [M, U] float32, and these tokens, [M, ...]."""
        source = self.source.take(self.sentences)
        summed = torch.zeros_like(self.attention).scatter_add(1, source.places, self.attention)
        return summed, source


def mix(log_generated: Tensor, gate: Tensor, copying: Copying) -> Tensor:
    """Log-probabilities [M, V] of the mixture, float32.

    Args:
        log_generated: [M, V] float32, log softmax(z).
        gate: [M, 1] float32, the logit of g.
        copying: of the M positions.
    """
    weights, source = copying.weights()
    log_generated = log_generated + F.logsigmoid(gate)
    odds = _log_odds(weights, F.logsigmoid(-gate), log_generated.gather(1, source.ids))
    return log_generated.scatter_add(1, source.ids, F.softplus(odds))


def copied_share(log_generated: Tensor, gate: Tensor, copying: Copying, tokens: Tensor) -> Tensor:
    """(1 - g) c_w / p(w) of the token w = `tokens` [M] of each position: [M] float32; the rest as for `mix`."""
    weights, source = copying.weights()
    label = tokens.unsqueeze(1)
    weight = (weights * (source.ids == label)).sum(dim=1, keepdim=True)
    odds = _log_odds(weight, F.logsigmoid(-gate), log_generated.gather(1, label) + F.logsigmoid(gate))
    return odds.sigmoid().squeeze(1)


def _log_odds(weights: Tensor, log_copy: Tensor, log_generated: Tensor) -> Tensor:
    """log((1 - g) c) - log(g · softmax(z)) at source tokens [M, U]: that a token was copied, not generated."""
    smallest = torch.finfo(weights.dtype).tiny
    odds = weights.clamp_min(smallest).log() + log_copy - log_generated
    return odds.masked_fill(weights == 0, float("-inf"))


class MixtureGradients(NamedTuple):
    """Gradients of the loss by the logit of g [M, 1] and by the attention [M, S], float32."""

    gate: Tensor
    attention: Tensor


def mixture_loss(
    scores: Tensor, labels: Tensor, smoothing: float, *, sums: Tensor, gate: Tensor, copying: Copying
) -> MixtureGradients:
    """Adds loss, nll and correct to `sums` [3]; turns the logits `scores` into their gradient.

    With t the smoothed target distribution and r = g · softmax(z) / p, the share of p that is generated
    (1 but at source tokens), the gradients of -Σ_w t_w log p(w) are

        by z: R · softmax(z) - t · r,   by the logit of g: g - R,   by c: -t (1 - g) / p,   R = Σ_w t_w r_w.

    Args:
        scores: [M, V] float32.
        labels: [M] int64.
        smoothing: label smoothing, of the mixture.
        sums: see above.
        gate: [M, 1] float32, the logit of g.
        copying: of the M positions.
    """
    size, label = scores.size(1), labels.unsqueeze(1)
    weights, source = copying.weights()
    log_copy = F.logsigmoid(-gate)
    scores.sub_(scores.amax(dim=1, keepdim=True))
    of_label, mean, of_source = scores.gather(1, label), scores.mean(dim=1, keepdim=True), scores.gather(1, source.ids)
    total = scores.exp_().sum(dim=1, keepdim=True)
    log_generate = F.logsigmoid(gate) - total.log()  # what turns a score into log(g · softmax(z))
    odds = _log_odds(weights, log_copy, of_source + log_generate)
    gain, copied = F.softplus(odds), odds.sigmoid()
    log_p = of_source + log_generate + gain
    is_label = source.ids == label
    target = is_label * (1 - smoothing) + smoothing / size  # t at the source tokens

    nll = -(of_label + log_generate).sum() - (gain * is_label).sum()
    of_mean = -(mean + log_generate).sum() - gain.sum() / size
    sums[0] += (1 - smoothing) * nll + smoothing * of_mean
    sums[1] += nll
    # The highest score is zero now, and the mixture is nowhere below what is generated.
    highest = torch.maximum(log_generate, log_p.amax(dim=1, keepdim=True))
    label_value = of_label + log_generate + (gain * is_label).sum(dim=1, keepdim=True)
    sums[2] += (label_value >= highest).sum()

    moved = target * copied
    generated = 1 - moved.sum(dim=1, keepdim=True)  # R
    scores.mul_(generated / total).sub_(smoothing / size)
    scores.scatter_add_(1, label, torch.full_like(of_label, smoothing - 1))
    scores.scatter_add_(1, source.ids, moved)
    by_weight = -target * (log_copy - log_p).clamp_max(_LARGEST_LOG_GRADIENT).exp()
    return MixtureGradients(gate.sigmoid() - generated, by_weight.gather(1, source.places))
