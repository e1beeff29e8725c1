"""The contract between the models, the loss and the search.

A model encodes a batch of sources once (`encode`). It then either reads whole targets (`decode`, teacher forcing for
the loss) or one target token per call (`pack_decoder`, `start`, `step`, for the search); both give the same numbers.
Only `output` computes over the vocabulary.

Shape letters: B batch, S source length, T target length, D d_model, K beam, V vocabulary, N = B × K rows.
Masks are boolean, True = may be attended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2seq.errors import UserError
from seq2seq.models.copying import SourceTokens
from seq2seq.models.flops import Multiplications
from seq2seq.models.kernels.packed_linear import PackedLinear
from seq2seq.models.output import DecoderOutput, OutputLayer

__all__ = ["DecoderOutput", "Memory", "OutputLayer", "PackedDecoder", "Seq2Seq", "State", "Vocabulary", "beam_rows"]

R = TypeVar("R")


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary sizes and special ids of a model; `joint`: source and target share one vocabulary."""

    source_size: int
    target_size: int
    joint: bool
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3


@dataclass
class Memory:
    """The encoder's output, which the decoder attends to.

    Attributes:
        states: encoder states [B, S, D]; D depends on the model family.
        mask: [B, S] bool, True at the positions that may be attended; at least one in each row.
        src: the source ids [B, S] int64.
    """

    states: Tensor
    mask: Tensor
    src: Tensor


@dataclass
class PackedDecoder:
    """A decoder's weights, stored for many small products in one dtype; outdated once a weight changes.

    Attributes:
        output: the projection onto the vocabulary.
    """

    output: PackedLinear


class State(ABC):
    """State of incremental decoding: N = B × width rows, with the beams of a sentence next to each other.

    Tensors that depend on the source only (cross-attention keys, masks) are stored once per sentence,
    [B, ...], not once per beam.
    """

    width: int

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Reorders the beams in place.

        Args:
            parents: [B, K] int64; new beam k of sentence b continues old beam `parents[b, k]` of that sentence.
                K may differ from the old width (decoding may start with one beam that fans out to K).
        """

    @abstractmethod
    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences except `sentences` [B'] (int64, indices into the current batch), in place."""


def beam_rows(parents: Tensor, width: int) -> Tensor:
    """Flat row indices [B × K] of the beams `parents` [B, K], where each sentence has `width` rows."""
    first = torch.arange(parents.size(0), device=parents.device) * width
    return (first.unsqueeze(1) + parents).flatten()


class Seq2Seq(nn.Module, ABC):
    """Base class of encoder-decoder models: p(target sequence | source sequence).

    Attributes:
        checkpoint_activations: whether training recomputes activations in the backward pass instead of storing them.
    """

    vocabulary: Vocabulary
    output: OutputLayer
    source_embedding: nn.Embedding
    target_embedding: nn.Embedding
    checkpoint_activations: bool = False

    def source_mask(self, src: Tensor) -> Tensor:
        """Padding mask [B, S] of source ids [B, S]: True at real tokens."""
        return src != self.vocabulary.pad_id

    def source_tokens(self, memory: Memory) -> SourceTokens | None:
        """The tokens that may be copied; None if the model does not copy."""
        return SourceTokens.from_ids(memory.src) if self.output.copies else None

    def maybe_checkpoint(self, function: Callable[..., R], *args: Any) -> R:
        """Returns `function(*args)`; with `checkpoint_activations`, the backward pass recomputes its activations.

        Chen et al. (2016, section 4, arXiv:1604.06174): stores the inputs only, at the cost of one more forward pass.
        """
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    @abstractmethod
    def encode(self, src: Tensor, src_mask: Tensor) -> Memory:
        """Encodes sources [B, S] int64, padded on the right where `src_mask` [B, S] is False."""

    @abstractmethod
    def decode(self, tgt_in: Tensor, memory: Memory, *, need_attention: bool = False) -> DecoderOutput:
        """Features [B, T, D]; those of position t depend on `tgt_in` [B, T] up to and including position t."""

    @abstractmethod
    def pack_decoder(self) -> PackedDecoder:
        """Packs the decoder's weights for `start`, in the dtype of autocast if it is enabled."""

    @abstractmethod
    def start(self, memory: Memory, packed: PackedDecoder, *, width: int = 1) -> State:
        """The state before the first target token, with `width` identical rows per sentence.

        `packed` must be what this model's `pack_decoder` returned under the same autocast, with the same weights.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: State, *, need_attention: bool) -> DecoderOutput:
        """Features [N, D] after one more token per row (`tokens` [N] int64), without dropout; updates `state`."""

    @abstractmethod
    def multiplications(self) -> Multiplications:
        """Counts the multiplications of `encode`, `decode` and `output`, from which the achieved FLOP/s are logged."""

    def vocabulary_tables(self) -> dict[str, Literal["source", "target"]]:
        """Returns the names of the weights [V, dimensions] that have a row per token, and whose vocabulary it is."""
        return {"source_embedding.weight": "source", "target_embedding.weight": "target", "output.weight": "target"}

    @torch.no_grad()
    def load_embeddings(self, side: Literal["source", "target"], weights: Tensor, *, found: Tensor) -> None:
        """Copies pretrained vectors into the source or target embedding.

        Args:
            side: which embedding; tied embeddings change together.
            weights: [V, dimensions] float.
            found: [V] bool; rows with True are copied, the others keep their random values.

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
