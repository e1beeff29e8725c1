"""Batches: which examples go together (a token budget, little padding), and the tensors made of them."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.data.ragged import Index, Sequences
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID

Lengths = npt.NDArray[np.integer[Any]]

_POOL = 1 << 16  # examples sorted together: padding is small, yet large corpora get other batches each epoch
_JITTER = 8.0  # places that an example may move away from where the sort puts it


@dataclass
class Batch:
    """Examples as padded tensors, all int64.

    Attributes:
        src: [B, S] source ids, each row ended by EOS, then padding.
        tgt_in: [B, T] decoder input: BOS y1 .. yn, then padding.
        rows: [M] places in the flattened [B*T] whose target is no padding, ascending.
        labels: [M] target ids at these places: y1 .. yn EOS of each example in turn.
        indices: [B] numbers of the examples in their store.
    """

    src: Tensor
    tgt_in: Tensor
    rows: Tensor
    labels: Tensor
    indices: Tensor

    @property
    def tokens(self) -> int:
        """Number of target tokens M, end of sentence counted."""
        return self.labels.numel()

    @property
    def padding_share(self) -> float:
        """Share of the B*S + B*T positions that are padding, 0 to 1 (waits for the device)."""
        used = int((self.src != PAD_ID).sum()) + self.tokens
        return 1 - used / (self.src.numel() + self.tgt_in.numel())

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies to a GPU need not be waited for."""
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    def halves(self) -> "tuple[Batch, Batch]":
        """The first and the second half of the examples, of which there are at least two."""
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
        """The same batch on a device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


def collate(
    store: TokenStore,
    indices: npt.NDArray[np.integer[Any]],
    *,
    max_source_length: int,
    max_target_length: int,
    pad_multiple: int = 1,
) -> Batch:
    """The batch of the given examples.

    Args:
        store: where they are.
        indices: [B] their numbers.
        max_source_length: tokens of a source, EOS counted; a longer one is cut.
        max_target_length: the same for targets.
        pad_multiple: padded lengths are rounded up to a multiple of this.
    """
    numbers: Index = np.asarray(indices, dtype=np.int64)
    src, _ = _padded(store.source_ids.gather(numbers, max_source_length - 1), pad_multiple)
    tgt, used = _padded(store.target_ids.gather(numbers, max_target_length - 1), pad_multiple)
    tgt_in = np.full_like(tgt, PAD_ID)
    tgt_in[:, 1:] = np.where(used[:, 1:], tgt[:, :-1], PAD_ID)
    tgt_in[:, 0] = BOS_ID
    rows = np.flatnonzero(used)
    return Batch(
        src=torch.from_numpy(src),
        tgt_in=torch.from_numpy(tgt_in),
        rows=torch.from_numpy(rows),
        labels=torch.from_numpy(tgt.reshape(-1)[rows]),
        indices=torch.from_numpy(numbers),
    )


def _padded(sequences: Sequences, pad_multiple: int) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Sequences as rows [B, width], each ended by EOS and then padded; and which places are no padding."""
    ids, lengths = sequences.values, sequences.lengths
    width = int(_rounded_up(lengths.max() + 1, pad_multiple))
    columns = np.arange(width)
    padded = np.full((len(lengths), width), PAD_ID, dtype=np.int64)
    padded[columns < lengths[:, None]] = ids
    padded[np.arange(len(lengths)), lengths] = EOS_ID
    return padded, columns <= lengths[:, None]


def _rounded_up(lengths: Index, multiple: int) -> Index:
    return -(-lengths // multiple) * multiple


@dataclass(frozen=True)
class EpochPlan:
    """The micro-batches of one epoch, over all ranks, in the order of training.

    Attributes:
        order: [N] example numbers, batch behind batch.
        ends: [M] where each micro-batch ends in `order`.
        tokens: [M] target tokens of each micro-batch, EOS counted.
    """

    order: Index
    ends: Index
    tokens: Index

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Index:
        """Example numbers [B] of a micro-batch, 0 to M-1."""
        start = self.ends[number - 1] if number else 0
        return self.order[start : self.ends[number]]

    def target_tokens(self, number: int) -> int:
        """Target tokens of a micro-batch, EOS counted: known on every rank without communication."""
        return int(self.tokens[number])


def plan_epoch(
    source_lengths: Lengths,
    target_lengths: Lengths,
    *,
    batch_tokens: int,
    seed: int,
    epoch: int,
    pad_multiple: int = 1,
) -> EpochPlan:
    """The micro-batches of an epoch: a pure function of the lengths, `seed` and `epoch`.

    The examples are shuffled, sorted by length within pools of 65,536, moved a few places at random, cut
    where the budget is full, and the batches shuffled. Each example is in one batch; every batch has
    examples * max(padded source, padded target) <= `batch_tokens`, or is one longer example alone.

    Args:
        source_lengths: [N] tokens, EOS counted.
        target_lengths: [N] tokens, EOS counted.
        batch_tokens: the budget of a micro-batch.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        pad_multiple: what `collate` rounds padded lengths up to.
    """
    if batch_tokens < 1:
        raise UserError(f"trainer.batch_tokens={batch_tokens}: must be at least 1.")
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(len(source_lengths))
    order = order[by_length(source_lengths[order], target_lengths[order], pool=_POOL)]
    # Where lengths are rare, the sort alone would bring the same examples together in every epoch.
    order = order[np.argsort(np.arange(len(order)) + generator.uniform(0, _JITTER, len(order)))]
    width = _rounded_up(np.maximum(source_lengths, target_lengths)[order], pad_multiple)
    ends = _cut(width, batch_tokens)
    sizes = np.diff(ends, prepend=0)
    shuffle = generator.permutation(len(sizes))
    moved = np.cumsum(sizes[shuffle]) - sizes[shuffle]  # where each batch starts after the shuffle
    shifts = np.repeat((ends - sizes)[shuffle] - moved, sizes[shuffle])
    order = order[shifts + np.arange(len(order))]
    ends = np.cumsum(sizes[shuffle])
    totals = np.concatenate([[0], np.cumsum(target_lengths[order], dtype=np.int64)])
    return EpochPlan(order, ends, np.diff(totals[ends], prepend=0))


def by_length(source: Lengths, target: Lengths, *, pool: int) -> Index:
    """The order that puts examples of alike lengths side by side, within each pool of neighbours.

    By the longer side, which is what the budget counts, then by how much longer the source is. The latter
    runs up and down in turn, so that neighbours at a change of the former are alike in both lengths too.
    """
    source, target = source.astype(np.int64), target.astype(np.int64)
    width, excess = np.maximum(source, target), source - target
    span = int(width.max(initial=0)) + 1
    # One key instead of three to sort by: pool, width, and the excess, which is between -span and span.
    key = (np.arange(len(width)) // pool * span + width) * (2 * span) + np.where(width % 2 == 0, excess, -excess)
    return np.argsort(key, kind="stable")


def _cut(width: Index, batch_tokens: int) -> Index:
    """Ends [M] of the batches that examples of these widths [N] fall into, each filled to the budget."""
    ends: list[int] = []
    start = 0
    while start < len(width):
        # No more than this many fit whatever follows: the first example alone is so wide.
        ahead = width[start : start + batch_tokens // int(width[start]) + 1]
        area = np.maximum.accumulate(ahead) * np.arange(1, len(ahead) + 1)  # grows with every example
        start += max(1, int(np.searchsorted(area, batch_tokens, side="right")))
        ends.append(start)
    return np.array(ends, dtype=np.int64)


def evaluation_batches(source_lengths: Lengths, target_lengths: Lengths, *, batch_tokens: int) -> list[Index]:
    """Batches of all examples within the budget of `plan_epoch`, by length, the same ones each time."""
    order = by_length(source_lengths, target_lengths, pool=max(1, len(source_lengths)))
    width = np.maximum(source_lengths, target_lengths)[order].astype(np.int64)
    ends = _cut(width, batch_tokens).tolist()
    return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
