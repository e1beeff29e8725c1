"""Gated recurrent units over whole sequences, with a backward pass of their own on the CPU.

    r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ⊙ (U_n h)),  h' = (1 - z) ⊙ n + z ⊙ h

Cho et al. (2014, section 2.3, arXiv:1406.1078) in the form of torch.nn.GRU (biases left out above), whose
parameters and layout are used. Why not its CPU kernel: it runs the two directions in turn, step by step in
the backward pass too, and adds to the weights' gradients at each step, where one product over all will do.

Sequences are time-major here, [S, B, ...]. G is the number of directions (2: the second reads backwards).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.models.dropout import Dropout


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of `x`: autocast's where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def run_bidirectional(gru: nn.GRU, x: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
    """All layers of a bidirectional `gru` over padded sequences.

    Padding has no influence and comes out as zeros, as with packed sequences.

    Args:
        gru: bidirectional, time-major, its own dropout unused.
        x: [S, B, E].
        mask: [B, S] bool, True at real positions (a prefix of each row, not empty).
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
    both_real = torch.stack([real, real.flip(0)], dim=1)  # [S, 2, B, 1]
    for layer in range(gru.num_layers):
        w, u, b, c = _weights(gru, layer)
        gates = F.linear(dropout(x) if layer else x, w.flatten(0, 1), b.flatten())
        there, back = gates.chunk(2, dim=-1)
        states = run_gates(torch.stack([there, back.flip(0)], dim=1), None, (u, c), both_real)
        x = torch.cat([states[:, 0], states[:, 1].flip(0)], dim=-1)
    return x


# Not compiled: a loop over time, of which each length would be a large graph of its own.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_gates(
    gates: Tensor, initial: Tensor | None, recurrent: tuple[Tensor, Tensor], mask: Tensor | None = None
) -> Tensor:
    """States of one layer given what its inputs contribute to the gates.

    Args:
        gates: W x + b, [S, G, B, 3H], reset, update and new gate side by side.
        initial: state before the first step [G, B, H]; None is zeros.
        recurrent: U [G, 3H, H] and its bias [G, 3H].
        mask: [S, G, B, 1] bool; where it is False the state is set to zero.

    Returns:
        [S, G, B, H].
    """
    if initial is None:
        initial = gates.new_zeros(*gates.shape[1:3], recurrent[0].size(2))
    states: Tensor = _Recurrence.apply(gates, initial, *recurrent, mask)  # type: ignore[no-untyped-call]
    return states


def _weights(gru: nn.GRU, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W [G, 3H, E], U [G, 3H, H] and their biases [G, 3H] of a layer."""
    suffixes = ["", "_reverse"] if gru.bidirectional else [""]
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, u, b, c = (torch.stack([getattr(gru, f"{stem}_l{layer}{s}") for s in suffixes]) for stem in stems)
    return w, u, b, c


class _Recurrence(torch.autograd.Function):
    """`run_gates`; the state is carried in float32, products are in the compute dtype."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, initial: Tensor, u: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        dtype = compute_dtype(gates)
        steps, size = gates.size(0), initial.size(-1)
        shape = gates.shape[:3]
        with torch.autocast(gates.device.type, enabled=False):
            weight, bias = u.to(dtype).transpose(1, 2), bias.to(dtype).unsqueeze(1)
            states = torch.empty(*shape, size, dtype=dtype, device=gates.device)
            reset_update = torch.empty(*shape, 2 * size, device=gates.device)
            new, memory = (
                torch.empty(*shape, size, device=gates.device),
                torch.empty(*shape, size, device=gates.device),
            )
            h = initial.float()
            for t in range(steps):
                of_input = gates[t].float()
                of_state = torch.baddbmm(bias, h.to(dtype), weight).float()
                rz = torch.add(of_input[..., : 2 * size], of_state[..., : 2 * size], out=reset_update[t]).sigmoid_()
                memory[t] = of_state[..., 2 * size :]
                n = torch.addcmul(of_input[..., 2 * size :], rz[..., :size], memory[t], out=new[t]).tanh_()
                h = torch.lerp(n, h, rz[..., size:])
                if mask is not None:
                    h.mul_(mask[t])
                states[t] = h
        ctx.save_for_backward(initial, u, states, reset_update, new, memory, mask)
        ctx.gates_dtype = gates.dtype
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        initial, u, states, reset_update, new, memory, mask = ctx.saved_tensors
        dtype, size, steps = states.dtype, states.size(-1), states.size(0)
        weight = u.to(dtype)
        before = torch.cat([initial.to(dtype).unsqueeze(0), states[:-1]])
        of_input = torch.empty(*states.shape[:3], 3 * size, dtype=dtype, device=states.device)
        of_state = torch.empty_like(of_input)
        grad = torch.zeros_like(initial, dtype=torch.float32)
        for t in reversed(range(steps)):
            rz, n = reset_update[t], new[t]
            r, z = rz[..., :size], rz[..., size:]
            grad = grad + grad_states[t]
            if mask is not None:
                grad = grad * mask[t]
            grad_n = torch.ops.aten.tanh_backward(grad - grad * z, n)
            grad_rz = torch.cat([grad_n * memory[t], grad * (before[t].float() - n)], dim=-1)
            grad_rz = torch.ops.aten.sigmoid_backward(grad_rz, rz)
            of_input[t] = torch.cat([grad_rz, grad_n], dim=-1)
            of_state[t] = torch.cat([grad_rz, grad_n * r], dim=-1)
            grad = grad * z + torch.bmm(of_state[t], weight)
        flat = of_state.transpose(0, 1).flatten(1, 2)  # [G, S·B, 3H]
        grad_u = torch.bmm(flat.transpose(1, 2), before.transpose(0, 1).flatten(1, 2))
        grad_bias = torch.bmm(flat.new_ones(flat.size(0), 1, flat.size(1)), flat).squeeze(1)
        return (
            of_input.to(ctx.gates_dtype),
            grad.to(initial.dtype),
            grad_u.to(u.dtype),
            grad_bias.to(u.dtype),
            None,
        )
