"""Gated recurrent units over whole sequences, with a backward pass of their own on the CPU.

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ⊙ (U_n h)),  h' = (1 - z) ⊙ n + z ⊙ h

Cho et al. (2014, section 2.3, arXiv:1406.1078) in the form of torch.nn.GRU (biases left out above), whose
parameters and layout are used. Why not its CPU kernel: it runs the two directions in turn, step by step in
the backward pass too, and adds to the weights' gradients at each step, where one product over all will do.

Sequences are time-major here, [S, B, ...], or [G, S, B, ...] where G is the number of directions (2: the second reads
backwards).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.models.dropout import Dropout
from seq2seq.models.linear import compute_dtype, wide_dtype


def run_bidirectional(gru: nn.GRU, x: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
    """All layers of a bidirectional `gru` over padded sequences.

    Padding has no influence and comes out as zeros, as with packed sequences.

    Args:
        gru: bidirectional, time-major, its own dropout unused.
        x: [S, B, E].
        mask: [B, S] bool, True at real positions: a prefix of each row, empty at most in rows added by `pad_rows`.
        dropout: between layers.

    Returns:
        [S, B, 2H].
    """
    if x.device.type == "cuda" and gru.num_layers == 1:  # cuDNN is fast at this
        # Autocast runs it in float16 even where bfloat16 is meant, and without a loss scale its gradients underflow.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(x.float(), mask.sum(dim=1).cpu(), enforce_sorted=False)
            y: Tensor = pad_packed_sequence(gru(packed)[0], total_length=x.size(0))[0]
        return y
    real = mask.t().unsqueeze(-1)  # [S, B, 1]
    both_real = torch.stack([real, real.flip(0)])  # [2, S, B, 1]
    dtype = compute_dtype(x)
    for layer in range(gru.num_layers):
        w, u, b, c = _weights(gru, layer)
        x = (dropout(x) if layer else x).to(dtype)
        both = torch.stack([x, x.flip(0)])  # [2, S, B, E]
        gates = torch.baddbmm(b.unsqueeze(1), both.flatten(1, 2), w.transpose(1, 2)).view(*both.shape[:3], -1)
        there, back = run_gates(gates, None, (u, c), both_real)
        x = torch.cat([there, back.flip(0)], dim=-1)
    return x


# Not compiled: a loop over time, of which each length would be a large graph of its own.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_gates(
    gates: Tensor, initial: Tensor | None, recurrent: tuple[Tensor, Tensor], mask: Tensor | None = None
) -> Tensor:
    """States of one layer given what its inputs contribute to the gates.

    Args:
        gates: W x + b, [G, S, B, 3H], reset, update and new gate side by side.
        initial: state before the first step [G, B, H]; None is zeros.
        recurrent: U [G, 3H, H] and its bias [G, 3H].
        mask: [G, S, B, 1] bool; where it is False the state is set to zero.

    Returns:
        [G, S, B, H].
    """
    if initial is None:
        initial = gates.new_zeros(gates.size(0), gates.size(2), recurrent[0].size(2))
    states: Tensor = _Recurrence.apply(gates, initial, *recurrent, mask)  # type: ignore[no-untyped-call]
    return states


def _weights(gru: nn.GRU, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W [G, 3H, E], U [G, 3H, H] and their biases [G, 3H] of a layer."""
    suffixes = ["", "_reverse"] if gru.bidirectional else [""]
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, u, b, c = (torch.stack([getattr(gru, f"{stem}_l{layer}{s}") for s in suffixes]) for stem in stems)
    return w, u, b, c


class GatedLayer:
    """A layer of gated recurrent units, step by step, and back step by step.

    The state is carried in the wide dtype, in which everything but the products is computed. Call it without autograd.

    Args:
        steps: S.
        initial: state before the first step [G, B, H].
        weight: U [G, 3H, H] in the compute dtype.
        bias: of U, [G, 3H] in the compute dtype.

    Attributes:
        states: [G, S + 1, B, H] in the compute dtype, the initial state first.
        of_input: gradients of what the inputs contribute to the gates, [G, S, B, 3H], after the steps back.
        grad: gradient of the state before the step that was last gone back, [G, B, H] wide.
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

    def forward(self, t: int, of_input: Tensor, mask: Tensor | None = None) -> Tensor:
        """State [G, B, H] after step `t`, given W x + b [G, B, 3H]; zero where `mask` [G, B, 1] (wide) is zero."""
        of_input = of_input.to(self._state.dtype)
        gates, new = self._gates[:, t], self._new[:, t]
        gates.copy_(torch.baddbmm(self._bias, self.states[:, t], self._weight.transpose(1, 2)))
        both = gates[..., : 2 * self._size].add_(of_input[..., : 2 * self._size]).sigmoid_()
        reset, update = both.chunk(2, dim=-1)
        remembered = gates[..., 2 * self._size :]
        torch.addcmul(of_input[..., 2 * self._size :], reset, remembered, out=new).tanh_()
        self._state = torch.addcmul(new, update, self._state - new)
        if mask is not None:
            self._state.mul_(mask)
        return self.states[:, t + 1].copy_(self._state)

    def start_backward(self) -> None:
        """Gets ready to go back from the last step."""
        self.of_input, self._of_state = (torch.empty_like(self._gates, dtype=self.states.dtype) for _ in range(2))
        self.grad = torch.zeros_like(self._state)
        self._of_gates = torch.empty_like(self._gates[:, 0])

    def backward(self, t: int, grad: Tensor, mask: Tensor | None = None) -> Tensor:
        """Goes back over step `t`.

        Args:
            t: S - 1 first.
            grad: gradient of what `forward` returned [G, B, H], but for what came by the next step.
            mask: as in `forward`.

        Returns:
            `of_input` of the step, [G, B, 3H].
        """
        size, new = self._size, self._new[:, t]
        reset, update, remembered = self._gates[:, t].chunk(3, dim=-1)
        grad = self.grad.add_(grad)
        if mask is not None:
            grad.mul_(mask)
        kept = grad * update
        of_reset, of_update, of_new = self._of_gates.chunk(3, dim=-1)
        torch.mul(grad, self.states[:, t] - new, out=of_update)
        of_new.copy_(torch.ops.aten.tanh_backward(grad.sub_(kept), new))
        torch.mul(of_new, remembered, out=of_reset)
        both = self._of_gates[..., : 2 * size]
        both.copy_(torch.ops.aten.sigmoid_backward(both, self._gates[:, t, :, : 2 * size]))
        of_input, of_state = self.of_input[:, t].copy_(self._of_gates), self._of_state[:, t]
        of_new.mul_(reset)
        of_state.copy_(self._of_gates)
        self.grad = kept.add_(torch.bmm(of_state, self._weight))
        return of_input

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, summed over all steps by one product."""
        flat = self._of_state.flatten(1, 2)  # [G, S·B, 3H]
        before = self.states[:, :-1].flatten(1, 2)
        ones = flat.new_ones(flat.size(0), 1, flat.size(1))
        return torch.bmm(flat.transpose(1, 2), before), torch.bmm(ones, flat).squeeze(1)


class _Recurrence(torch.autograd.Function):
    """`run_gates`."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, initial: Tensor, u: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        dtype = compute_dtype(gates)
        with torch.autocast(gates.device.type, enabled=False):
            layer = GatedLayer(gates.size(1), initial, u.to(dtype), bias.to(dtype))
            mask = None if mask is None else mask.to(wide_dtype(dtype))
            for t in range(gates.size(1)):
                layer.forward(t, gates[:, t], None if mask is None else mask[:, t])
        ctx.layer, ctx.mask = layer, mask
        ctx.dtypes = gates.dtype, initial.dtype, u.dtype, bias.dtype
        return layer.states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        layer: GatedLayer = ctx.layer
        layer.start_backward()
        for t in reversed(range(grad_states.size(1))):
            layer.backward(t, grad_states[:, t], None if ctx.mask is None else ctx.mask[:, t])
        grads = (layer.of_input, layer.grad, *layer.gradients())
        return *(grad.to(dtype) for grad, dtype in zip(grads, ctx.dtypes, strict=True)), None
