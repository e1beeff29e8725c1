"""Gated recurrent units over whole sequences, with a hand-written backward pass.

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ⊙ (U_n h)),  h' = (1 - z) ⊙ n + z ⊙ h

Cho et al. (2014, section 2.3, arXiv:1406.1078) in the form of torch.nn.GRU (biases omitted above), with the same
parameters and layout. Its CPU kernel is slow: it runs the two directions one after the other and updates the weights'
gradients at each step of the backward pass, where this module uses one product over all steps.

Sequences are time-major here, [S, B, ...], or [G, S, B, ...], where G is the number of directions (2: the second one
reads backwards).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.models.kernels.dropout import Dropout
from seq2seq.models.kernels.linear import compute_dtype, wide_dtype


def run_bidirectional(gru: nn.GRU, x: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
    """Runs all layers of a bidirectional `gru` over padded sequences.

    As with packed sequences, padding has no influence and its outputs are zeros.

    Args:
        gru: bidirectional and time-major; its own dropout is not used.
        x: [S, B, E].
        mask: [B, S] bool, True at tokens: a prefix of each row, which is empty in rows added by `pad_rows` only.
        dropout: between layers.

    Returns:
        [S, B, 2H].
    """
    if x.device.type == "cuda" and gru.num_layers == 1:  # cuDNN is faster
        # Autocast runs it in float16 even if its dtype is bfloat16, and gradients underflow without a loss scale.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(x.float(), mask.sum(dim=1).cpu(), enforce_sorted=False)
            y: Tensor = pad_packed_sequence(gru(packed)[0], total_length=x.size(0))[0]
        return y
    token_mask = mask.t().unsqueeze(-1)  # [S, B, 1]
    both_masks = torch.stack([token_mask, token_mask.flip(0)])  # [2, S, B, 1]
    dtype = compute_dtype(x)
    for layer in range(gru.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = _layer_weights(gru, layer)
        x = (dropout(x) if layer else x).to(dtype)
        both = torch.stack([x, x.flip(0)])  # [2, S, B, E]
        flat_gates = torch.baddbmm(bias_ih.unsqueeze(1), both.flatten(1, 2), weight_ih.transpose(1, 2))
        input_gates = flat_gates.view(*both.shape[:3], -1)
        forward_states, backward_states = run_recurrence(input_gates, None, (weight_hh, bias_hh), both_masks)
        x = torch.cat([forward_states, backward_states.flip(0)], dim=-1)
    return x


# Not compiled: torch.compile would unroll the loop over time into one large graph per length.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_recurrence(
    input_gates: Tensor, initial: Tensor | None, recurrent: tuple[Tensor, Tensor], mask: Tensor | None = None
) -> Tensor:
    """States of one layer, given the contribution of its inputs to the gates.

    Args:
        input_gates: W x + b, [G, S, B, 3H]: reset, update and new gate, concatenated.
        initial: state before the first step [G, B, H]; None means zeros.
        recurrent: U [G, 3H, H] and its bias [G, 3H].
        mask: [G, S, B, 1] bool; the state is set to zero where it is False.

    Returns:
        [G, S, B, H].
    """
    if initial is None:
        initial = input_gates.new_zeros(input_gates.size(0), input_gates.size(2), recurrent[0].size(2))
    states: Tensor = _Recurrence.apply(input_gates, initial, *recurrent, mask)  # type: ignore[no-untyped-call]
    return states


def _layer_weights(gru: nn.GRU, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W [G, 3H, E], U [G, 3H, H] and their biases [G, 3H] of a layer."""
    suffixes = ["", "_reverse"] if gru.bidirectional else [""]
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weight_ih, weight_hh, bias_ih, bias_hh = (
        torch.stack([getattr(gru, f"{stem}_l{layer}{suffix}") for suffix in suffixes]) for stem in stems
    )
    return weight_ih, weight_hh, bias_ih, bias_hh


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
