"""From decoder features to the vocabulary: log-probabilities and the loss.

The only module that knows V, shared by all families. The loss never holds a [rows, V] tensor for the
backward pass: it walks over the rows in chunks and leaves with the gradients in hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq.models.copying import Copying, MixtureGradients, copied_share, mix, mixture_loss
from seq2seq.models.linear import pad_rows, round_up
from seq2seq.models.packed_linear import PackedLinear

# Elements of one chunk of logits. On the CPU from 8 to 64 MiB in bfloat16 were equally fast, so the least; an
# accelerator wants few large products.
_CHUNK_ELEMENTS = {"cpu": 1 << 22}
_CHUNK_ELEMENTS_ELSEWHERE = 1 << 26
# But not fewer rows than this: each chunk adds as much as the whole weight to its gradient.
_FEWEST_ROWS = 512
# A chunk's part of the weight's gradient is a sum over its rows before any loss scale is applied. In float16, whose
# largest number is 65504, the sum over so many rows stays finite for features up to 8; later scaling could not fix it.
_CHUNK_ROWS_FLOAT16 = 1 << 13


@dataclass
class DecoderOutput:
    """What the decoder says about target positions, short of the vocabulary.

    Attributes:
        features: [*, D].
        attention: [*, S] float32, rows sum to one; None unless it was asked for. Where the model copies it is always
            there: the weights that source tokens are copied by.
        copying: what the positions, flattened, may copy; None where the model does not copy.
        repetition: [*] float32, Σ_i min(a_i, coverage_i), attention to what was attended to before; None without
            coverage.
    """

    features: Tensor
    attention: Tensor | None = None
    copying: Copying | None = None
    repetition: Tensor | None = None

    def rows(self, index: Tensor) -> DecoderOutput:
        """The positions `index` [M] (int64, into the flattened leading axes): features [M, D]."""
        features = self.features.flatten(0, -2).index_select(0, index)
        copying = None if self.copying is None else self.copying.rows(index)
        attention = None if copying is None else copying.attention
        if copying is None and self.attention is not None:
            attention = self.attention.flatten(0, -2).index_select(0, index)
        repetition = None if self.repetition is None else self.repetition.flatten().index_select(0, index)
        return DecoderOutput(features, attention, copying, repetition)


class LossSums(NamedTuple):
    """Sums over target tokens, float32 scalars; divide by `tokens` for means.

    Attributes:
        loss: label-smoothed cross-entropy in nats, with a gradient.
        nll: cross-entropy without smoothing in nats.
        correct: tokens whose label has the highest probability.
        tokens: how many.
        repetition: the coverage loss (`DecoderOutput.repetition`), with a gradient; zero without coverage.
    """

    loss: Tensor
    nll: Tensor
    correct: Tensor
    tokens: Tensor
    repetition: Tensor


class Output(nn.Module):
    """Projects features onto the vocabulary: softmax(W x), W [V, E] of its own or an embedding's.

    Args:
        d_model: size of the features.
        vocab_size: V.
        tied: an embedding's weight [V, E] to share; None makes one of its own with E = d_model. Where E is not
            d_model, a linear projection comes between.
        copy: mix in copying from the source (see `seq2seq.models.copying`); its probability is a logistic function
            of the features.
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
        """Whether the output may be copied from the source."""
        return self.gate is not None

    def pack(self, dtype: torch.dtype) -> PackedLinear:
        """The projection onto the vocabulary for many calls of `log_probs` with products in `dtype`."""
        return PackedLinear([self.weight], dtype=dtype)

    def log_probs(self, hidden: DecoderOutput, packed: PackedLinear | None = None) -> Tensor:
        """Normalised log-probabilities [*, V], float32, of features [*, D]; `packed` is what `pack` gave, if it did."""
        log_probs = self._log_generated(hidden, packed)
        if self.gate is None:
            return log_probs
        assert hidden.copying is not None, "a model that copies says what"
        mixed = mix(log_probs.flatten(0, -2), self._gate(hidden).flatten(0, -2), hidden.copying)
        return mixed.view_as(log_probs)

    def copy_probs(self, hidden: DecoderOutput, tokens: Tensor) -> Tensor:
        """The probability that `tokens` [*] (int64) were copied rather than generated, given that they came out.

        Only where `copies` holds.

        Returns:
            [*] float32 in [0, 1].
        """
        assert hidden.copying is not None, "a model that copies says what"
        log_probs, gate = self._log_generated(hidden).flatten(0, -2), self._gate(hidden).flatten(0, -2)
        return copied_share(log_probs, gate, hidden.copying, tokens.flatten()).view_as(tokens)

    def loss(
        self, hidden: DecoderOutput, labels: Tensor, smoothing: float, *, chunk_rows: int | None = None
    ) -> LossSums:
        """Sums of the cross-entropy over rows of features [M, D] with labels [M] (int64).

        Label smoothing (Szegedy et al., 2016, section 7, arXiv:1512.00567) as `F.cross_entropy` defines it:
        the target distribution is (1 - smoothing) on the label plus smoothing / V on every entry.

        `chunk_rows`, a multiple of 16, is how many rows of logits there are at once; None is what suits the device.
        """
        features = self._project(hidden)
        copying = None if hidden.copying is None else (self._gate(hidden), hidden.copying)
        loss, nll, correct = _cross_entropy(
            features, self.weight, labels, smoothing, copying=copying, chunk_rows=chunk_rows
        )
        tokens = torch.full_like(nll, labels.numel())
        repetition = torch.zeros_like(nll) if hidden.repetition is None else hidden.repetition.sum()
        return LossSums(loss, nll, correct, tokens, repetition)

    def _log_generated(self, hidden: DecoderOutput, packed: PackedLinear | None = None) -> Tensor:
        features = self._project(hidden)
        logits = F.linear(features, self.weight) if packed is None else packed(features)
        return torch.log_softmax(logits.float(), dim=-1)

    def _gate(self, hidden: DecoderOutput) -> Tensor:
        """The logit [*, 1], float32, of the probability to generate."""
        assert self.gate is not None, "only models that copy have a gate"
        with torch.autocast(hidden.features.device.type, enabled=False):
            y: Tensor = self.gate(hidden.features.float())
        return y

    def _project(self, hidden: DecoderOutput) -> Tensor:
        features = hidden.features
        return features if self.projection is None else self.projection(features)


# Not compiled: traced, each number of rows would be a graph of its own, and its kernels are few and large anyway.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _cross_entropy(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    *,
    copying: tuple[Tensor, Copying] | None,
    chunk_rows: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of loss, nll and correct, see `LossSums`; `copying` is the gate's logits [M, 1] and what to copy."""
    gate, copied = copying or (None, None)
    attention = None if copied is None else copied.attention
    # Within the function gradients are always off, and `needs_input_grad` does not heed torch.no_grad.
    inputs = [tensor for tensor in (features, weight, gate, attention) if tensor is not None]
    want_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    sums: tuple[Tensor, Tensor, Tensor] = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, weight, gate, attention, _Settings(labels, smoothing, copied, want_grad, chunk_rows)
    )
    return sums


class _Settings(NamedTuple):
    """What `_CrossEntropy` needs besides what it gives gradients for."""

    labels: Tensor
    smoothing: float
    copying: Copying | None
    want_grad: bool
    chunk_rows: int | None


class _CrossEntropy(torch.autograd.Function):
    """Sum of smoothed cross-entropies of softmax(features @ weight.T), or its mixture, without storing the logits.

    The gradient of the logits, softmax - target distribution, is known as soon as the logits are, so the
    forward pass turns each chunk of it into the gradients of features and weight (as in Hsu et al., 2024,
    section 3.2, arXiv:2410.10989) and the backward pass only scales them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        gate: Tensor | None,
        attention: Tensor | None,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, smoothing, copying, want_grad, chunk_rows = settings
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        with torch.autocast(device, enabled=False):
            x, w = features.to(dtype), weight.to(dtype)
            sums = torch.zeros(3, dtype=torch.float32, device=x.device)
            grad_x = torch.empty_like(x) if want_grad else None
            grad_w = torch.zeros_like(weight) if want_grad else None
            grads_copying: list[MixtureGradients] = []
            rows = chunk_rows or _suitable_rows(w, device)
            mean_row = w.mean(dim=0, dtype=torch.float32)
            # All chunks use the same memory: fresh memory costs page faults, more than the arithmetic.
            logits = torch.empty(min(rows, round_up(x.size(0))), w.size(0), dtype=dtype, device=x.device)
            wide = None if copying is None else torch.empty_like(logits, dtype=torch.float32)
            piece = torch.empty_like(w)
            for start in range(0, x.size(0), rows):
                part = slice(start, start + rows)
                padded = pad_rows(x[part])
                size = min(rows, x.size(0) - start)
                logits_part = torch.mm(padded, w.t(), out=logits[: padded.size(0)])
                scores = logits_part[:size]
                if gate is None or copying is None or wide is None:
                    mean = x[part].float() @ mean_row
                    _chunk_loss(scores, labels[part], smoothing, sums=sums, mean=mean, want_grad=want_grad)
                else:
                    exact, some = wide[:size].copy_(scores), copying.part(part)
                    grads = mixture_loss(exact, labels[part], smoothing, sums=sums, gate=gate[part], copying=some)
                    grads_copying.append(grads)
                    scores.copy_(exact)
                if grad_x is not None and grad_w is not None:
                    logits_part[size:] = 0
                    grad_x[part] = torch.mm(logits_part, w)[:size]
                    grad_w.add_(torch.mm(logits_part.t(), padded, out=piece))
            if grad_x is not None and grad_w is not None and copying is None:
                # The part of label smoothing, the same for each logit.
                grad_x.sub_(mean_row, alpha=smoothing)
                grad_w.sub_(x.sum(dim=0, dtype=torch.float32), alpha=smoothing / w.size(0))
        if want_grad:
            of_copying = [torch.cat(chunks) for chunks in zip(*grads_copying, strict=True)]
            ctx.save_for_backward(grad_x, grad_w, *(of_copying or (None, None)))
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


def _suitable_rows(weight: Tensor, device: str) -> int:
    """Rows of logits at once, for a weight [V, D] in the dtype of the products."""
    rows = round_up(max(_FEWEST_ROWS, _CHUNK_ELEMENTS.get(device, _CHUNK_ELEMENTS_ELSEWHERE) // weight.size(0)))
    return min(rows, _CHUNK_ROWS_FLOAT16) if weight.dtype is torch.float16 else rows


def _chunk_loss(
    scores: Tensor, labels: Tensor, smoothing: float, *, sums: Tensor, mean: Tensor, want_grad: bool
) -> None:
    """Adds loss, nll and correct of logits `scores` [m, V] to `sums` [3], and turns them into their gradient, in place.

    All but the same -smoothing / V of each entry, which the caller adds to what it computes of the gradient. `mean` [m]
    is that of the logits of each row.

    In place, softmax is a single pass over memory, and the loss needs no other: what softmax divides by follows from
    the label's probability. As this is a positive number in float32 and bfloat16, no token's loss is above 87 nats.
    """
    label, places = labels.unsqueeze(1), (torch.arange(labels.numel(), device=labels.device), labels)
    of_label = scores.gather(1, label).float().squeeze(1)
    exact = not want_grad or scores.dtype is torch.float16
    log_total = torch.logsumexp(scores.float(), dim=1) if exact else None
    torch.softmax(scores, dim=1, out=scores)
    probability = scores[places]
    correct = _bits(probability) == _bits(scores).amax(dim=1)
    scores[places] = 0
    # A probability near one has lost in rounding what it lacks, which the gradient needs: the sum of the others.
    others = scores.sum(dim=1).float()
    if log_total is None:
        small = probability.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        log_total = of_label - torch.where(others < 0.5, torch.log1p(-others), small)
    scores[places] = (smoothing - others).to(scores.dtype)
    nll = (log_total - of_label).sum()
    sums[0] += (1 - smoothing) * nll + smoothing * (log_total - mean).sum()
    sums[1] += nll
    sums[2] += correct.sum()


def _bits(probabilities: Tensor) -> Tensor:
    """Numbers that are not negative as integers of the same order, of which the CPU finds the largest far sooner."""
    return probabilities.view(torch.int32 if probabilities.dtype is torch.float32 else torch.int16)
