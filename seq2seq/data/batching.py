"""Batching: grouping examples by a token budget with little padding, and collating them into tensors."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.data.ragged import IntArray, RaggedArray
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID

Lengths = npt.NDArray[np.integer[Any]]

_POOL = 1 << 16  # examples sorted together: little padding, yet large corpora get different batches each epoch
_JITTER = 8.0  # maximum random shift of an example within the sorted order


@dataclass
class Batch:
    """Examples as padded tensors, all int64.

    Attributes:
        src: [B, S] source ids and EOS, then padding.
        tgt_in: [B, T] decoder input: BOS y1 .. yn, then padding.
        rows: [M] indices into the flattened [B*T] target positions that are not padding, ascending.
        labels: [M] target ids at `rows`: y1 .. yn EOS of each example in turn.
        indices: [B] indices of the examples in their store.
    """

    src: Tensor
    tgt_in: Tensor
    rows: Tensor
    labels: Tensor
    indices: Tensor

    @property
    def tokens(self) -> int:
        """Number of target tokens M, EOS included."""
        return self.labels.numel()

    @property
    def padding_share(self) -> float:
        """Fraction of the B*S + B*T positions that are padding, 0 to 1 (synchronizes with the device)."""
        used = int((self.src != PAD_ID).sum()) + self.tokens
        return 1 - used / (self.src.numel() + self.tgt_in.numel())

    def pin_memory(self) -> "Batch":
        """Returns the batch in page-locked memory, from which it can be copied to a GPU asynchronously."""
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    def halves(self) -> "tuple[Batch, Batch]":
        """Splits the batch, of at least two examples, into a first and a second half."""
        middle, width = len(self.indices) // 2, self.tgt_in.size(1)
        split = int((self.rows < middle * width).sum())
        return (
            Batch(
                self.src[:middle], self.tgt_in[:middle], self.rows[:split], self.labels[:split], self.indices[:middle]
            ),
            Batch(
                self.src[middle:],
                self.tgt_in[middle:],
                self.rows[split:] - middle * width,
                self.labels[split:],
                self.indices[middle:],
            ),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Returns the batch on a device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


def collate(store: TokenStore, indices: npt.NDArray[np.integer[Any]]) -> Batch:
    """Collates examples into a batch.

    Args:
        store: the store that holds the examples.
        indices: [B] their indices in the store.
    """
    store_indices: IntArray = np.asarray(indices, dtype=np.int64)
    src, _ = _pad(store.source_ids.gather(store_indices))
    tgt, mask = _pad(store.target_ids.gather(store_indices))
    tgt_in = np.full_like(tgt, PAD_ID)
    tgt_in[:, 1:] = np.where(mask[:, 1:], tgt[:, :-1], PAD_ID)
    tgt_in[:, 0] = BOS_ID
    rows = np.flatnonzero(mask)
    return Batch(
        src=torch.from_numpy(src),
        tgt_in=torch.from_numpy(tgt_in),
        rows=torch.from_numpy(rows),
        labels=torch.from_numpy(tgt.reshape(-1)[rows]),
        indices=torch.from_numpy(store_indices),
    )


def _pad(sequences: RaggedArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Appends EOS to each sequence and pads to [B, width]; also returns the mask of what is not padding."""
    ids, lengths = sequences.values, sequences.lengths
    width = int(lengths.max()) + 1
    positions = np.arange(width)
    padded = np.full((len(lengths), width), PAD_ID, dtype=np.int64)
    padded[positions < lengths[:, None]] = ids
    padded[np.arange(len(lengths)), lengths] = EOS_ID
    return padded, positions <= lengths[:, None]


def plan_epoch(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    batch_tokens: int,
    seed: int,
    epoch: int,
) -> RaggedArray:
    """Plans the micro-batches of an epoch: a pure function of the lengths, `seed` and `epoch`.

    Shuffles the examples, sorts them by length within pools of 65,536, shifts each by a small random amount within
    the sorted order, starts a new batch where the budget is full, and shuffles the batches. Each example is in exactly
    one batch; each batch has examples * max(padded source, padded target) <= `batch_tokens`, or consists of one longer
    example.

    Args:
        source_lengths: [N] tokens per source, EOS included.
        target_lengths: [N] tokens per target, EOS included.
        batch_tokens: the token budget of a micro-batch.
        seed: the run's seed.
        epoch: epoch index, from 0.

    Returns:
        The example indices of each micro-batch, over all ranks, in the order of training.

    Raises:
        UserError: the budget is not positive.
    """
    if batch_tokens < 1:
        raise UserError(f"trainer.batch_tokens={batch_tokens}: must be at least 1.")
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(len(source_lengths))
    order = order[argsort_by_length(source_lengths[order], target_lengths[order], pool=_POOL)]
    # Without this, examples of rare lengths would share a batch in every epoch.
    order = order[np.argsort(np.arange(len(order)) + generator.uniform(0, _JITTER, len(order)))]
    width = np.maximum(source_lengths, target_lengths)[order]
    batches = _fill_batches(order, width, batch_tokens)
    return batches.gather(generator.permutation(len(batches)))


def argsort_by_length(source: Lengths, target: Lengths, *, pool: int) -> IntArray:
    """Returns the order [N] that sorts examples by length within each pool of `pool` consecutive examples.

    The first key is the longer side, which the budget counts; the second is how much longer the source is. The
    second alternates between ascending and descending, so that both lengths also change little where the first
    key does.
    """
    source, target = source.astype(np.int64), target.astype(np.int64)
    width, excess = np.maximum(source, target), source - target
    span = int(width.max(initial=0)) + 1
    # Combines three sort keys into one: pool, width, and the excess, which is between -span and span.
    key = (np.arange(len(width)) // pool * span + width) * (2 * span) + np.where(width % 2 == 0, excess, -excess)
    return np.argsort(key, kind="stable")


def _fill_batches(order: IntArray, width: IntArray, batch_tokens: int) -> RaggedArray:
    """Fills batches greedily with examples in a given order [N], whose widths are given [N]."""
    offsets = [0]
    while offsets[-1] < len(width):
        start = offsets[-1]
        # The width of the first example bounds how many can fit.
        candidates = width[start : start + batch_tokens // int(width[start]) + 1]
        area = np.maximum.accumulate(candidates) * np.arange(1, len(candidates) + 1)  # strictly increasing
        offsets.append(start + max(1, int(np.searchsorted(area, batch_tokens, side="right"))))
    return RaggedArray(order, np.array(offsets, dtype=np.int64))


def evaluation_batches(source_lengths: Lengths, target_lengths: Lengths, *, batch_tokens: int) -> list[IntArray]:
    """Groups all examples, sorted by length, into batches within the budget of `plan_epoch`; deterministic."""
    order = argsort_by_length(source_lengths, target_lengths, pool=max(1, len(source_lengths)))
    width = np.maximum(source_lengths, target_lengths)[order].astype(np.int64)
    batches = _fill_batches(order, width, batch_tokens)
    return [batches[index] for index in range(len(batches))]
