"""Gated recurrent units over whole sequences, with a hand-written backward pass.

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ⊙ (U_n h)),  h' = (1 - z) ⊙ n + z ⊙ h

Cho et al. (2014, section 2.3, arXiv:1406.1078) in the form of torch.nn.GRU (biases omitted above), with the same
parameters and layout. Its CPU kernel is slow: it runs the two directions one after the other and updates the weights'
gradients at each step of the backward pass, where this module uses one product over all steps. On CUDA, cuDNN runs
whole layers.

Sequences are time-major here, [S, B, ...], or [G, S, B, ...], where G is the number of directions (2: the second one
reads backwards).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.dtypes import compute_dtype, wide_dtype
from seq2seq.models.kernels.padding import pad_rows
from seq2seq.models.kernels.selection import kernels_apply, not_compiled


def run_encoder(gru: nn.GRU, x: Tensor, mask: Tensor, dropout: Dropout, *, _cudnn: bool | None = None) -> Tensor:
    """Runs all layers of a bidirectional `gru` over padded sequences.

    As with packed sequences, padding has no influence and its outputs are zeros.

    Args:
        gru: bidirectional and time-major; its own dropout is not used.
        x: [S, B, E].
        mask: [B, S] bool, True at tokens: a non-empty prefix of each row.
        dropout: between layers.

    Returns:
        [S, B, 2H].
    """
    if _use_cudnn(x, _cudnn):
        initial = x.new_zeros(2 * gru.num_layers, x.size(1), gru.hidden_size)
        return _run_library(gru, x, initial, dropout, lengths=mask.sum(dim=1).cpu())
    length, batch_size, _ = x.shape
    x = pad_rows(x, dim=1)
    token_mask = F.pad(mask, (0, 0, 0, x.size(1) - batch_size)).t().unsqueeze(-1)  # [S, B, 1]
    both_masks = torch.stack([token_mask, token_mask.flip(0)])  # [2, S, B, 1]
    dtype = compute_dtype(x)
    for layer in range(gru.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = (
            torch.stack(pair)
            for pair in zip(layer_weights(gru, layer), layer_weights(gru, layer, "_reverse"), strict=True)
        )
        x = (dropout(x) if layer else x).to(dtype)
        both = torch.stack([x, x.flip(0)])  # [2, S, B, E]
        flat_gates = torch.baddbmm(bias_ih.unsqueeze(1), both.flatten(1, 2), weight_ih.transpose(1, 2))
        input_gates = flat_gates.view(2, length, x.size(1), -1)
        initial = x.new_zeros(2, x.size(1), gru.hidden_size)
        forward_states, backward_states = run_recurrence(input_gates, initial, weight_hh, bias_hh, both_masks)
        x = torch.cat([forward_states, backward_states.flip(0)], dim=-1)
    return x[:, :batch_size]


def run_decoder(gru: nn.GRU, x: Tensor, initial: Tensor, dropout: Dropout, *, _cudnn: bool | None = None) -> Tensor:
    """Runs all layers of `gru` over whole sequences, whose padding comes last.

    Args:
        gru: unidirectional and time-major; its own dropout is not used.
        x: [T, B, E].
        initial: states of the layers before the first step [L, B, D].
        dropout: between layers.

    Returns:
        States of the last layer, [T, B, D].
    """
    if _use_cudnn(x, _cudnn):
        return _run_library(gru, x, initial, dropout)
    for layer, state in enumerate(initial):
        weight_ih, weight_hh, bias_ih, bias_hh = layer_weights(gru, layer)
        input_gates = F.linear(dropout(x) if layer else x, weight_ih, bias_ih)
        tensors = (tensor.unsqueeze(0) for tensor in (input_gates, state, weight_hh, bias_hh))
        x = run_recurrence(*tensors).squeeze(0)
    return x


def layer_weights(gru: nn.GRU, layer: int, suffix: str = "") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W [3H, E], U [3H, H] and their biases [3H] of a layer, in one direction ("" or "_reverse")."""
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weight_ih, weight_hh, bias_ih, bias_hh = (getattr(gru, f"{stem}_l{layer}{suffix}") for stem in stems)
    return weight_ih, weight_hh, bias_ih, bias_hh


def _use_cudnn(x: Tensor, forced: bool | None) -> bool:
    """Whether torch.nn.GRU's own kernels run; tests force them on the CPU, where they are slower than ours."""
    return x.device.type == "cuda" if forced is None else forced


# Not compiled: the compiler would trace torch's GRU step by step.
@not_compiled
def _run_library(gru: nn.GRU, x: Tensor, initial: Tensor, dropout: Dropout, *, lengths: Tensor | None = None) -> Tensor:
    """The states of the last layer [S, B, G × H] by torch's GRU, zero beyond `lengths`.

    One call per layer, so that dropout between them draws from the same generator as elsewhere.

    Args:
        gru: its weights.
        x: [S, B, E].
        initial: [L × G, B, H].
        dropout: between layers.
        lengths: [B] int64, on the CPU; None if padding needs no care.
    """
    directions = ("", "_reverse") if gru.bidirectional else ("",)
    dtype = layer_weights(gru, 0)[0].dtype
    # Autocast runs cuDNN in float16 even if its dtype is bfloat16, and gradients underflow without a loss scale.
    with torch.autocast(x.device.type, enabled=False), warnings.catch_warnings():
        # cuDNN copies one layer's weights out of those of all layers, which costs little.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
        total_length, x = x.size(0), x.to(dtype)
        packed = None if lengths is None else pack_padded_sequence(x, lengths, enforce_sorted=False)
        if packed is not None:
            x = packed.data
        for layer, state in enumerate(torch.split(initial.to(dtype), len(directions))):
            weights = [weight for suffix in directions for weight in layer_weights(gru, layer, suffix)]
            x = dropout(x) if layer else x
            settings = (weights, True, 1, 0.0, gru.training, gru.bidirectional)
            if packed is None:
                x = torch.gru(x, state, *settings, False)[0]
            else:
                x = torch.gru(x, packed.batch_sizes, state, *settings)[0]
        if packed is None:
            return x
        return pad_packed_sequence(PackedSequence(x, *packed[1:]), total_length=total_length)[0]


@not_compiled
def run_recurrence(
    input_gates: Tensor, initial: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None = None
) -> Tensor:
    """States of one layer, given the contribution of its inputs to the gates.

    Args:
        input_gates: W x + b, [G, S, B, 3H]: reset, update and new gate, concatenated.
        initial: state before the first step [G, B, H].
        weight: U [G, 3H, H].
        bias: bias of U, [G, 3H].
        mask: [G, S, B, 1] bool; the state is set to zero where it is False.

    Returns:
        [G, S, B, H].
    """
    if not kernels_apply(input_gates):
        return reference_recurrence(input_gates, initial, weight, bias, mask)
    return _Recurrence.apply(input_gates, initial, weight, bias, mask)


def reference_recurrence(
    input_gates: Tensor, initial: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`run_recurrence` in plain torch."""
    groups = []
    for g, state in enumerate(initial):
        states = []
        for t, gates in enumerate(input_gates[g]):
            state = gru_cell(gates, F.linear(state, weight[g], bias[g]), state)
            state = state if mask is None else state * mask[g, t]
            states.append(state)
        groups.append(torch.stack(states))
    return torch.stack(groups).to(compute_dtype(input_gates))


def gru_cell(input_gates: Tensor, recurrent_gates: Tensor, state: Tensor) -> Tensor:
    """One step of a layer, by the equations above.

    Args:
        input_gates: W x with bias, [B, 3H]: reset, update and new gate, concatenated.
        recurrent_gates: U h with bias, [B, 3H].
        state: h, [B, H].

    Returns:
        h', [B, H], wide (at least float32), as everything here but the products.
    """
    state = state.to(wide_dtype(state.dtype))
    reset_x, update_x, new_x = input_gates.to(state.dtype).chunk(3, dim=-1)
    reset_h, update_h, new_h = recurrent_gates.to(state.dtype).chunk(3, dim=-1)
    reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + reset * new_h)
    return (1 - update) * new + update * state


class IncrementalGRU:
    """A GRU layer whose forward and backward passes run one step at a time. Call it with autograd disabled.

    The state is kept in the wide dtype, and everything except the matrix products is computed in it.

    Args:
        steps: S.
        initial: state before the first step [G, B, H].
        weight: U [G, 3H, H] in the compute dtype.
        bias: bias of U, [G, 3H] in the compute dtype.

    Attributes:
        states: [G, S + 1, B, H] in the compute dtype, starting with the initial state.
        grad_input_gates: gradient of the inputs' contribution to the gates, [G, S, B, 3H]; filled by `backward`.
        grad_state: gradient of the state before the step of the last `backward`, [G, B, H] wide.
    """

    def __init__(self, steps: int, initial: Tensor, weight: Tensor, bias: Tensor):
        dtype, wide = weight.dtype, wide_dtype(weight.dtype)
        groups, rows, size = initial.shape
        self._weight, self._bias, self._size = weight, bias.unsqueeze(1), size
        self.states = initial.new_empty(groups, steps + 1, rows, size, dtype=dtype)
        self.states[:, 0] = initial
        self._state = initial.to(wide)
        self._gates = initial.new_empty(groups, steps, rows, 3 * size, dtype=wide)  # r, z and U_n h
        self._new = initial.new_empty(groups, steps, rows, size, dtype=wide)  # n

    def forward(self, t: int, input_gates: Tensor, mask: Tensor | None = None) -> Tensor:
        """State [G, B, H] after step `t`, given W x + b [G, B, 3H]; zero where `mask` [G, B, 1] (wide) is zero."""
        input_gates = input_gates.to(self._state.dtype)
        gates, new = self._gates[:, t], self._new[:, t]
        gates.copy_(torch.baddbmm(self._bias, self.states[:, t], self._weight.transpose(1, 2)))
        reset_and_update = gates[..., : 2 * self._size].add_(input_gates[..., : 2 * self._size]).sigmoid_()
        reset, update = reset_and_update.chunk(2, dim=-1)
        recurrent_new = gates[..., 2 * self._size :]
        torch.addcmul(input_gates[..., 2 * self._size :], reset, recurrent_new, out=new).tanh_()
        self._state = torch.addcmul(new, update, self._state - new)
        if mask is not None:
            self._state.mul_(mask)
        return self.states[:, t + 1].copy_(self._state)

    def start_backward(self) -> None:
        """Allocates the gradients; call it before the first `backward`."""
        self.grad_input_gates, self._grad_recurrent_gates = (
            torch.empty_like(self._gates, dtype=self.states.dtype) for _ in range(2)
        )
        self.grad_state = torch.zeros_like(self._state)
        self._grad_gates = torch.empty_like(self._gates[:, 0])

    def backward(self, t: int, grad: Tensor, mask: Tensor | None = None) -> Tensor:
        """Backward pass of step `t`.

        Args:
            t: from S - 1 down to 0.
            grad: gradient of the output of `forward` [G, B, H], without the part that comes from step t + 1.
            mask: as in `forward`.

        Returns:
            `grad_input_gates` of the step, [G, B, 3H].
        """
        size, new = self._size, self._new[:, t]
        reset, update, recurrent_new = self._gates[:, t].chunk(3, dim=-1)
        grad = self.grad_state.add_(grad)
        if mask is not None:
            grad.mul_(mask)
        grad_previous = grad * update  # gradient of h through z ⊙ h
        grad_reset, grad_update, grad_new = self._grad_gates.chunk(3, dim=-1)
        torch.mul(grad, self.states[:, t] - new, out=grad_update)
        grad_new.copy_(torch.ops.aten.tanh_backward(grad.sub_(grad_previous), new))
        torch.mul(grad_new, recurrent_new, out=grad_reset)
        grad_both = self._grad_gates[..., : 2 * size]  # of reset and update
        grad_both.copy_(torch.ops.aten.sigmoid_backward(grad_both, self._gates[:, t, :, : 2 * size]))
        grad_input_gates = self.grad_input_gates[:, t].copy_(self._grad_gates)
        grad_new.mul_(reset)
        grad_recurrent_gates = self._grad_recurrent_gates[:, t].copy_(self._grad_gates)
        self.grad_state = grad_previous.add_(torch.bmm(grad_recurrent_gates, self._weight))
        return grad_input_gates

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, as one product over all steps."""
        flat = self._grad_recurrent_gates.flatten(1, 2)  # [G, S·B, 3H]
        previous = self.states[:, :-1].flatten(1, 2)
        ones = flat.new_ones(flat.size(0), 1, flat.size(1))
        return torch.bmm(flat.transpose(1, 2), previous), torch.bmm(ones, flat).squeeze(1)


class _Recurrence(torch.autograd.Function):
    """Autograd function of `run_recurrence`."""

    @staticmethod
    def forward(
        ctx: Any, input_gates: Tensor, initial: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        dtype = compute_dtype(input_gates)
        with torch.autocast(input_gates.device.type, enabled=False):
            layer = IncrementalGRU(input_gates.size(1), initial, weight.to(dtype), bias.to(dtype))
            mask = None if mask is None else mask.to(wide_dtype(dtype))
            for t in range(input_gates.size(1)):
                layer.forward(t, input_gates[:, t], None if mask is None else mask[:, t])
        ctx.layer, ctx.mask = layer, mask
        ctx.dtypes = input_gates.dtype, initial.dtype, weight.dtype, bias.dtype
        return layer.states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        layer: IncrementalGRU = ctx.layer
        layer.start_backward()
        for t in reversed(range(grad_states.size(1))):
            layer.backward(t, grad_states[:, t], None if ctx.mask is None else ctx.mask[:, t])
        grads = (layer.grad_input_gates, layer.grad_state, *layer.gradients())
        return *(grad.to(dtype) for grad, dtype in zip(grads, ctx.dtypes, strict=True)), None
