"""The output layer: log-probabilities over the vocabulary, and the loss.

The only module that knows V, shared by all model families. The loss never stores a [rows, V] tensor for the backward
pass: it processes the rows in chunks and computes the gradients in the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.copying import CopyDistribution, copy_posterior, mixture_log_probs
from seq2seq.models.kernels.cross_entropy import cross_entropy
from seq2seq.models.kernels.packed_linear import PackedLinear


@dataclass
class DecoderOutput:
    """The decoder's output for target positions, before the projection onto the vocabulary.

    Attributes:
        features: [*, D].
        attention: [*, S] float32, rows sum to one; None unless requested. Models that copy always return it: these are
            the weights that source tokens are copied with.
        copying: copy distributions of the flattened positions; None if the model does not copy.
        coverage_loss: [*] float32, Σ_i min(a_i, coverage_i), for attention to positions that were attended to before;
            None without coverage.
    """

    features: Tensor
    attention: Tensor | None = None
    copying: CopyDistribution | None = None
    coverage_loss: Tensor | None = None

    def rows(self, index: Tensor) -> DecoderOutput:
        """Selects the positions `index` [M] (int64, into the flattened leading dimensions): features [M, D]."""
        features = self.features.flatten(0, -2).index_select(0, index)
        copying = None if self.copying is None else self.copying.rows(index)
        attention = None if copying is None else copying.attention
        if copying is None and self.attention is not None:
            attention = self.attention.flatten(0, -2).index_select(0, index)
        coverage_loss = None if self.coverage_loss is None else self.coverage_loss.flatten().index_select(0, index)
        return DecoderOutput(features, attention, copying, coverage_loss)


class LossSums(NamedTuple):
    """Sums over target tokens, float32 scalars; divide by `tokens` for means.

    Attributes:
        loss: label-smoothed cross-entropy in nats, differentiable.
        nll: cross-entropy without smoothing in nats.
        correct: number of tokens whose label has the highest probability.
        tokens: number of target tokens.
        coverage_loss: sum of `DecoderOutput.coverage_loss`, differentiable; zero without coverage.
    """

    loss: Tensor
    nll: Tensor
    correct: Tensor
    tokens: Tensor
    coverage_loss: Tensor


class OutputLayer(nn.Module):
    """Projects features onto the vocabulary: softmax(W x), where W [V, E] may be an embedding's weight.

    Args:
        d_model: size of the features.
        vocab_size: V.
        tied: an embedding's weight [V, E] to share; None creates a weight with E = d_model. If E differs from d_model,
            a linear projection is inserted.
        copy: mix in copying from the source (see `seq2seq.models.copying`).
    """

    def __init__(self, d_model: int, *, vocab_size: int, tied: nn.Parameter | None = None, copy: bool = False) -> None:
        super().__init__()
        if tied is None:
            self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
            nn.init.normal_(self.weight, std=d_model**-0.5)
        else:
            self.weight = tied
        size = self.weight.size(1)
        self.projection = None if size == d_model else nn.Linear(d_model, size, bias=False)
        self.gate = nn.Linear(d_model, 1) if copy else None

    @property
    def copies(self) -> bool:
        """Whether the model can copy source tokens."""
        return self.gate is not None

    def pack(self) -> PackedLinear:
        """Packs the projection onto the vocabulary for repeated calls of `log_probs`."""
        return PackedLinear([self.weight])

    def log_probs(self, decoded: DecoderOutput, packed: PackedLinear | None = None) -> Tensor:
        """Normalised log-probabilities [*, V], float32, of features [*, D]; `packed` is a result of `pack`."""
        log_probs = self._vocab_log_probs(decoded, packed)
        if self.gate is None:
            return log_probs
        assert decoded.copying is not None, "a model that copies returns its copy distribution"
        gate_logits = self._gate_logits(decoded).flatten(0, -2)
        return mixture_log_probs(log_probs.flatten(0, -2), gate_logits, decoded.copying).view_as(log_probs)

    def copy_probs(self, decoded: DecoderOutput, tokens: Tensor) -> Tensor:
        """Posterior probability that the output `tokens` [*] (int64) were copied, not generated.

        Requires `copies`.

        Returns:
            [*] float32 in [0, 1].
        """
        assert decoded.copying is not None, "a model that copies returns its copy distribution"
        log_probs = self._vocab_log_probs(decoded).flatten(0, -2)
        gate_logits = self._gate_logits(decoded).flatten(0, -2)
        return copy_posterior(log_probs, gate_logits, decoded.copying, tokens.flatten()).view_as(tokens)

    def loss(
        self, decoded: DecoderOutput, labels: Tensor, smoothing: float, *, chunk_rows: int | None = None
    ) -> LossSums:
        """Sums of the cross-entropy over rows of features [M, D] with labels [M] (int64).

        Label smoothing (Szegedy et al., 2016, section 7, arXiv:1512.00567) as `F.cross_entropy` defines it:
        the target distribution is (1 - smoothing) on the label plus smoothing / V on every entry.

        `chunk_rows`, a multiple of 16, is the number of rows of logits in memory at once; None chooses it by device.
        """
        features = self._project(decoded)
        copying = None if decoded.copying is None else (self._gate_logits(decoded), decoded.copying)
        loss, nll, correct = cross_entropy(
            features, self.weight, labels, smoothing, copying=copying, chunk_rows=chunk_rows
        )
        tokens = torch.full_like(nll, labels.numel())
        coverage_loss = torch.zeros_like(nll) if decoded.coverage_loss is None else decoded.coverage_loss.sum()
        return LossSums(loss, nll, correct, tokens, coverage_loss)

    def _vocab_log_probs(self, decoded: DecoderOutput, packed: PackedLinear | None = None) -> Tensor:
        """Log-probabilities [*, V], float32, of generating each token, given that the next one is not copied."""
        features = self._project(decoded)
        logits = F.linear(features, self.weight) if packed is None else packed(features)
        return torch.log_softmax(logits.float(), dim=-1)

    def _gate_logits(self, decoded: DecoderOutput) -> Tensor:
        """The logit [*, 1], float32, of the probability to generate."""
        assert self.gate is not None, "only models that copy have a gate"
        with torch.autocast(decoded.features.device.type, enabled=False):
            return self.gate(decoded.features.to(self.gate.weight.dtype))

    def _project(self, decoded: DecoderOutput) -> Tensor:
        features = decoded.features
        return features if self.projection is None else self.projection(features)
