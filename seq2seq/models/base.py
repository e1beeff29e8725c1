"""The contract between the models, the loss and the search.

A model encodes a batch of sources once (`encode`), then either reads whole targets (`decode`, for the loss)
or produces one target token a call (`start`, `step`, for the search). Both ways give the same numbers.
`output` alone knows the vocabulary.

Shape letters: B batch, S source length, T target length, D d_model, K beam, V vocabulary, N = B × K rows.
Masks are boolean, True = may be attended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2seq.errors import UserError
from seq2seq.models.copying import SourceTokens
from seq2seq.models.linear import compute_dtype
from seq2seq.models.output import DecoderOutput, Output

__all__ = ["DecoderOutput", "Memory", "Output", "Seq2Seq", "State", "Vocabulary", "beam_rows", "compute_dtype"]

R = TypeVar("R")


@dataclass(frozen=True)
class Vocabulary:
    """The sizes and special ids a model is built for; `joint`: source and target share their ids."""

    source_size: int
    target_size: int
    joint: bool
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3


@dataclass
class Memory:
    """What the encoder leaves for the decoder.

    Attributes:
        states: encoder states [B, S, D] (any width D the family chose).
        mask: [B, S] bool, True at the positions that may be attended; at least one in each row.
        src: the source ids [B, S] int64.
    """

    states: Tensor
    mask: Tensor
    src: Tensor


class State(ABC):
    """Where a step-by-step decoding stands: N = B × width rows, the beams of a sentence side by side.

    What belongs to a sentence (cross-attention keys, masks) is stored once, [B, ...], not once a beam.
    """

    width: int

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Replaces the beams in place.

        Args:
            parents: [B, K] int64; new beam k of sentence b goes on from its old beam `parents[b, k]`.
                K may differ from the old width (a start with one beam that fans out).
        """

    @abstractmethod
    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences but `sentences` [B'] (int64, indices into the current batch), in place."""


def beam_rows(parents: Tensor, width: int) -> Tensor:
    """Flat row numbers [B × K] of the beams `parents` [B, K] when each sentence has `width` rows."""
    first = torch.arange(parents.size(0), device=parents.device) * width
    return (first.unsqueeze(1) + parents).flatten()


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder: the probability of a target sequence given a source sequence.

    Attributes:
        checkpoint_activations: whether training computes activations anew in the backward pass instead of keeping them.
    """

    vocabulary: Vocabulary
    output: Output
    source_embedding: nn.Embedding
    target_embedding: nn.Embedding
    checkpoint_activations: bool = False
    _made: dict[Hashable, Any] | None = None  # what `once` made, while weights do not change

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """While it lasts no weight changes, and what `once` makes of them is kept; afterwards it is let go."""
        outer, self._made = self._made, {} if self._made is None else self._made
        try:
            yield
        finally:
            self._made = outer

    def once(self, key: Hashable, make: Callable[[], R]) -> R:
        """What `make` makes of weights: made anew by each call, but once only within `unchanging`."""
        if self._made is None:
            return make()
        if key not in self._made:
            self._made[key] = make()
        made: R = self._made[key]
        return made

    def source_mask(self, src: Tensor) -> Tensor:
        """Padding mask [B, S] of source ids [B, S]: True at real tokens."""
        return src != self.vocabulary.pad_id

    def source_tokens(self, memory: Memory) -> SourceTokens | None:
        """What may be copied; None where the model does not copy."""
        return SourceTokens.of(memory.src) if self.output.copies else None

    def run(self, part: Callable[..., R], *args: Any) -> R:
        """Calls a part of the model, and keeps none but its inputs for the backward pass if that is asked for.

        Chen et al. (2016, section 4, arXiv:1604.06174): memory for one part instead of all, for one more forward pass.
        """
        if self.checkpoint_activations and torch.is_grad_enabled():
            result: R = checkpoint(part, *args, use_reentrant=False)
            return result
        return part(*args)

    @abstractmethod
    def encode(self, src: Tensor, src_mask: Tensor) -> Memory:
        """Encodes sources [B, S] int64, padded on the right where `src_mask` [B, S] is False."""

    @abstractmethod
    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """Features [B, T, D] of each target position, having read `tgt_in` [B, T] up to and with it."""

    @abstractmethod
    def start(self, memory: Memory, *, width: int = 1) -> State:
        """The state before the first target token, with `width` equal rows a sentence."""

    @abstractmethod
    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """Features [N, D] after one more token a row (`tokens` [N] int64); advances `state` in place."""

    @torch.no_grad()
    def load_embeddings(self, side: Literal["source", "target"], weights: Tensor, *, found: Tensor) -> None:
        """Copies pretrained vectors into the rows of one side's embedding.

        Args:
            side: whose embedding; tied embeddings change together.
            weights: [V, dimensions] float.
            found: [V] bool; only these rows are copied, the others keep their random values.

        Raises:
            UserError: if the dimensions differ from the model's.
        """
        table = (self.source_embedding if side == "source" else self.target_embedding).weight
        if weights.size(1) != table.size(1):
            raise UserError(
                f"tokenizer.{side}_vectors has vectors of {weights.size(1)} dimensions, the model's {side} embedding "
                f"has {table.size(1)}: set model.embedding_size (gru) or model.d_model (transformer) to "
                f"{weights.size(1)}"
            )
        table[found] = weights[found].to(table)
