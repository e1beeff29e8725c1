"""The output layer: log-probabilities over the vocabulary, and the loss.

The only module that knows V, shared by all model families. The loss never stores a [rows, V] tensor for the backward
pass: it processes the rows in chunks and computes the gradients in the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.copying import CopyDistribution, MixtureGradients, copy_posterior, mixture_log_probs, mixture_loss
from seq2seq.models.linear import pad_rows, round_up
from seq2seq.models.packed_linear import PackedLinear

# Elements of one chunk of logits. On the CPU, 8 to 64 MiB in bfloat16 were equally fast, so this is the smallest; an
# accelerator needs few large products.
_CHUNK_ELEMENTS = {"cpu": 1 << 22}
_DEFAULT_CHUNK_ELEMENTS = 1 << 26
# At least this many rows: each chunk adds a gradient of the size of the whole weight.
_MIN_CHUNK_ROWS = 512
# A chunk's contribution to the weight's gradient is a sum over its rows, before any loss scale is applied. In float16
# (maximum 65504), the sum over this many rows stays finite for features below 8; scaling later could not fix it.
_MAX_CHUNK_ROWS_FLOAT16 = 1 << 13


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

    def pack(self, dtype: torch.dtype) -> PackedLinear:
        """Packs the projection onto the vocabulary for repeated calls of `log_probs`, with products in `dtype`."""
        return PackedLinear([self.weight], dtype=dtype)

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
        loss, nll, correct = _cross_entropy(
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
            y: Tensor = self.gate(decoded.features.float())
        return y

    def _project(self, decoded: DecoderOutput) -> Tensor:
        features = decoded.features
        return features if self.projection is None else self.projection(features)


# Not compiled: torch.compile would make one graph per number of rows, and the kernels are few and large anyway.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _cross_entropy(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    *,
    copying: tuple[Tensor, CopyDistribution] | None,
    chunk_rows: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of loss, nll and correct, see `LossSums`; `copying` holds gate logits [M, 1] and copy distributions."""
    gate_logits, copy_distribution = copying or (None, None)
    attention = None if copy_distribution is None else copy_distribution.attention
    # Decided here: inside the function gradients are always off, and `needs_input_grad` ignores torch.no_grad.
    inputs = [tensor for tensor in (features, weight, gate_logits, attention) if tensor is not None]
    want_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    constants = _LossConstants(labels, smoothing, copy_distribution, want_grad, chunk_rows)
    sums: tuple[Tensor, Tensor, Tensor] = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, weight, gate_logits, attention, constants
    )
    return sums


class _LossConstants(NamedTuple):
    """Inputs of `_CrossEntropy` that get no gradient."""

    labels: Tensor
    smoothing: float
    copying: CopyDistribution | None
    want_grad: bool
    chunk_rows: int | None


class _CrossEntropy(torch.autograd.Function):
    """Sum of smoothed cross-entropies of softmax(features @ weight.T), or of the copy mixture, without storing logits.

    The gradient of the logits, softmax - target distribution, follows from the logits alone. So the forward pass
    turns each chunk of it into gradients of features and weight (as in Hsu et al., 2024, section 3.2,
    arXiv:2410.10989), and the backward pass only scales these.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        gate_logits: Tensor | None,
        attention: Tensor | None,
        constants: _LossConstants,
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, smoothing, copying, want_grad, chunk_rows = constants
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        with torch.autocast(device, enabled=False):
            x, w = features.to(dtype), weight.to(dtype)
            sums = torch.zeros(3, dtype=torch.float32, device=x.device)
            grad_x = torch.empty_like(x) if want_grad else None
            grad_w = torch.zeros_like(weight) if want_grad else None
            mixture_grads: list[MixtureGradients] = []
            rows = chunk_rows or _default_chunk_rows(w, device)
            mean_row = w.mean(dim=0, dtype=torch.float32)
            # All chunks reuse the same buffers: the page faults of fresh memory cost more than the arithmetic.
            logits = torch.empty(min(rows, round_up(x.size(0))), w.size(0), dtype=dtype, device=x.device)
            logits_fp32 = None if copying is None else torch.empty_like(logits, dtype=torch.float32)
            chunk_grad_w = torch.empty_like(w)
            for start in range(0, x.size(0), rows):
                chunk = slice(start, start + rows)
                padded = pad_rows(x[chunk])
                size = min(rows, x.size(0) - start)
                padded_logits = torch.mm(padded, w.t(), out=logits[: padded.size(0)])
                chunk_logits = padded_logits[:size]  # overwritten by their gradient below
                if gate_logits is None or copying is None or logits_fp32 is None:
                    mean = x[chunk].float() @ mean_row
                    _chunk_loss(chunk_logits, labels[chunk], smoothing, sums=sums, mean=mean, want_grad=want_grad)
                else:
                    wide = logits_fp32[:size].copy_(chunk_logits)
                    gate, copies = gate_logits[chunk], copying.chunk(chunk)
                    grads = mixture_loss(wide, labels[chunk], smoothing, sums=sums, gate_logits=gate, copying=copies)
                    mixture_grads.append(grads)
                    chunk_logits.copy_(wide)
                if grad_x is not None and grad_w is not None:
                    padded_logits[size:] = 0
                    grad_x[chunk] = torch.mm(padded_logits, w)[:size]
                    grad_w.add_(torch.mm(padded_logits.t(), padded, out=chunk_grad_w))
            if grad_x is not None and grad_w is not None and copying is None:
                # The -smoothing / V of each logit's gradient, which `_chunk_loss` leaves out.
                grad_x.sub_(mean_row, alpha=smoothing)
                grad_w.sub_(x.sum(dim=0, dtype=torch.float32), alpha=smoothing / w.size(0))
        if want_grad:
            copy_grads = [torch.cat(chunks) for chunks in zip(*mixture_grads, strict=True)]
            ctx.save_for_backward(grad_x, grad_w, *(copy_grads or (None, None)))
            ctx.dtypes = features.dtype, weight.dtype
        loss, nll, correct = sums.unbind()
        loss, nll, correct = loss.clone(), nll.clone(), correct.clone()
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_w, grad_gate, grad_attention = ctx.saved_tensors
        x_dtype, w_dtype = ctx.dtypes
        return (
            grad_x.to(x_dtype) * grads[0],
            (grad_w * grads[0]).to(w_dtype),
            None if grad_gate is None else grad_gate * grads[0],
            None if grad_attention is None else grad_attention * grads[0],
            None,
        )


def _default_chunk_rows(weight: Tensor, device: str) -> int:
    """Number of rows per chunk of logits, for a weight [V, D] in the dtype of the products."""
    rows = round_up(max(_MIN_CHUNK_ROWS, _CHUNK_ELEMENTS.get(device, _DEFAULT_CHUNK_ELEMENTS) // weight.size(0)))
    return min(rows, _MAX_CHUNK_ROWS_FLOAT16) if weight.dtype is torch.float16 else rows


def _chunk_loss(
    logits: Tensor, labels: Tensor, smoothing: float, *, sums: Tensor, mean: Tensor, want_grad: bool
) -> None:
    """Adds loss, nll and correct of `logits` [m, V] to `sums` [3], and overwrites the logits with their gradient.

    Except for the term -smoothing / V, the same for each entry, which the caller adds. `mean` [m] is the mean of the
    logits of each row.

    In-place softmax is a single pass over memory, and the loss needs no other: the denominator of softmax follows from
    the label's probability. In float16, where that probability may underflow, and
    in evaluation, logsumexp computes it exactly; in training, a reported loss is at most 87 nats per token.
    """
    label, label_entries = labels.unsqueeze(1), (torch.arange(labels.numel(), device=labels.device), labels)
    label_logits = logits.gather(1, label).float().squeeze(1)
    use_logsumexp = not want_grad or logits.dtype is torch.float16
    log_total = torch.logsumexp(logits.float(), dim=1) if use_logsumexp else None
    probs = torch.softmax(logits, dim=1, out=logits)
    label_probs = probs[label_entries]
    correct = _bits(label_probs) == _bits(probs).amax(dim=1)
    probs[label_entries] = 0
    # For a label's probability p near one, 1 - p would lose its digits in rounding: sum the other entries instead.
    others = probs.sum(dim=1).float()
    if log_total is None:
        log_label_probs = label_probs.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        log_total = label_logits - torch.where(others < 0.5, torch.log1p(-others), log_label_probs)
    probs[label_entries] = (smoothing - others).to(probs.dtype)
    nll = (log_total - label_logits).sum()
    sums[0] += (1 - smoothing) * nll + smoothing * (log_total - mean).sum()
    sums[1] += nll
    sums[2] += correct.sum()


def _bits(probabilities: Tensor) -> Tensor:
    """Non-negative floats as integers of the same order, whose maximum the CPU finds much faster."""
    return probabilities.view(torch.int32 if probabilities.dtype is torch.float32 else torch.int16)
