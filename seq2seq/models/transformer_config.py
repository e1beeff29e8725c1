"""The shape of a Transformer, and what its parts may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.models.config import LARGEST_SIZE, TieEmbeddings


class TransformerAttention(str, Enum):
    """Scores of the attention: divided by the square root of the head size, or as they are."""

    scaled_dot = "scaled_dot"
    dot = "dot"


class Activation(str, Enum):
    """Between the two layers of the feed-forward block."""

    relu = "relu"
    gelu = "gelu"


class NormPlacement(str, Enum):
    """Where layer normalisation sits: after each residual sum (the paper's), or before each block."""

    post = "post"
    pre = "pre"


class PositionKind(str, Enum):
    """Fixed sinusoids, which reach any length, or a learned table with a limit."""

    sinusoidal = "sinusoidal"
    learned = "learned"


class CopyAttention(str, Enum):
    """By which attention the Transformer copies.

    Of the last layer's attention over the source its first head or the mean of its heads, or a head of its own behind
    the last layer.
    """

    head = "head"
    mean = "mean"
    own = "own"


@dataclass
class TransformerConfig:
    """The shape of a Transformer; the defaults suit corpora of tens of thousands of short sentences.

    Attributes:
        d_ff: inner size of the feed-forward block.
        dropout: on embeddings and on each block's output.
        attention_dropout: on the attention weights.
        activation_dropout: inside the feed-forward block.
        max_positions: length of the learned table of positions; sinusoids go on beyond it.
        copy: mix in copying source tokens by their attention (See et al., 2017, section 2.2, arXiv:1704.04368); one
            tokenizer for both sides.
        copy_attention: which attention that is.
    """

    family: str = "transformer"
    d_model: int = 256
    d_ff: int = 1024
    num_heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation: Activation = Activation.relu
    norm: NormPlacement = NormPlacement.post
    positions: PositionKind = PositionKind.sinusoidal
    max_positions: int = 1024
    attention: TransformerAttention = TransformerAttention.scaled_dot
    tie_embeddings: TieEmbeddings = TieEmbeddings.all
    copy: bool = False
    copy_attention: CopyAttention = CopyAttention.own

    def __post_init__(self) -> None:
        """Checks what no single type can say.

        Raises:
            UserError: naming the key.
        """
        for name in ("d_model", "d_ff", "num_heads", "encoder_layers", "decoder_layers", "max_positions"):
            if not 1 <= getattr(self, name) <= LARGEST_SIZE:
                raise UserError(f"model.{name}={getattr(self, name)} must be from 1 to {LARGEST_SIZE:,}")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.d_model % self.num_heads:
            raise UserError(f"model.d_model={self.d_model} is not divisible by model.num_heads={self.num_heads}")
        if self.d_model % 2:
            raise UserError(f"model.d_model={self.d_model} must be even: positions are pairs of sine and cosine")
