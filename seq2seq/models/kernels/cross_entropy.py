"""The cross-entropy of the vocabulary projection, in chunks of rows, with its gradient computed in the forward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.models.copying import CopyDistribution, mixture_log_probs
from seq2seq.models.kernels.dtypes import compute_dtype, wide_dtype
from seq2seq.models.kernels.mixture import MixtureGradients, mixture_loss
from seq2seq.models.kernels.padding import pad_rows, round_up
from seq2seq.models.kernels.selection import kernels_apply, not_compiled

# Elements of one chunk of logits. On the CPU, 8 to 64 MiB in bfloat16 were equally fast, so this is the smallest; an
# accelerator needs few large products.
_CHUNK_ELEMENTS = {"cpu": 1 << 22}
_DEFAULT_CHUNK_ELEMENTS = 1 << 26
# At least this many rows: each chunk adds a gradient of the size of the whole weight.
_MIN_CHUNK_ROWS = 512
# A chunk's contribution to the weight's gradient is a sum over its rows, before any loss scale is applied. In float16
# (maximum 65504), the sum over this many rows stays finite for features below 8; scaling later could not fix it.
_MAX_CHUNK_ROWS_FLOAT16 = 1 << 13


# Not compiled: torch.compile would make one graph per number of rows, and the kernels are few and large anyway.
@not_compiled
def cross_entropy(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    *,
    copying: tuple[Tensor, CopyDistribution] | None,
    chunk_rows: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of loss, nll and correct, see `LossSums`; `copying` holds gate logits [M, 1] and copy distributions."""
    if not kernels_apply(features):
        return reference_cross_entropy(features, weight, labels, smoothing, copying=copying)
    gate_logits, copy_distribution = copying or (None, None)
    attention = None if copy_distribution is None else copy_distribution.attention
    # Decided here: inside the function gradients are always off, and `needs_input_grad` ignores torch.no_grad.
    inputs = [tensor for tensor in (features, weight, gate_logits, attention) if tensor is not None]
    want_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    constants = _LossConstants(labels, smoothing, copy_distribution, want_grad, chunk_rows)
    return _CrossEntropy.apply(features, weight, gate_logits, attention, constants)


def reference_cross_entropy(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    *,
    copying: tuple[Tensor, CopyDistribution] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`cross_entropy` in plain torch, with all logits in memory."""
    logits = F.linear(features, weight)
    log_probs = torch.log_softmax(logits.to(wide_dtype(logits.dtype)), dim=-1)
    if copying is not None:
        log_probs = mixture_log_probs(log_probs, *copying)
    loss = F.cross_entropy(log_probs, labels, label_smoothing=smoothing, reduction="sum")
    nll = F.nll_loss(log_probs, labels, reduction="sum").detach()
    label_log_probs = log_probs.gather(1, labels.unsqueeze(1))
    return loss, nll, (label_log_probs >= log_probs.amax(dim=1, keepdim=True)).sum().to(nll)


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
        device, dtype = features.device.type, compute_dtype(features)
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
