"""Configuration of the Transformer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.models.config import LARGEST_SIZE, TieEmbeddings


class TransformerAttention(str, Enum):
    """Attention scores: dot products, with or without division by the square root of the head size."""

    scaled_dot = "scaled_dot"
    dot = "dot"


class Activation(str, Enum):
    """Activation function of the feed-forward block."""

    relu = "relu"
    gelu = "gelu"


class NormPlacement(str, Enum):
    """Position of layer normalisation: after each residual sum (as in the paper), or before each block."""

    post = "post"
    pre = "pre"


class PositionKind(str, Enum):
    """Position encodings: fixed sinusoids, for any length, or learned embeddings up to a maximum length."""

    sinusoidal = "sinusoidal"
    learned = "learned"


class CopyAttention(str, Enum):
    """The attention that serves as the copy distribution.

    `head` and `mean` use the last layer's cross-attention: its first head, or the mean of its heads. `own` adds a
    separate attention head after the last layer.
    """

    head = "head"
    mean = "mean"
    own = "own"


@dataclass
class TransformerConfig:
    """Configuration of a Transformer; the defaults suit corpora of tens of thousands of short sentences.

    Attributes:
        d_ff: inner size of the feed-forward block.
        dropout: on embeddings and on each block's output.
        attention_dropout: on the attention weights.
        activation_dropout: inside the feed-forward block.
        max_positions: number of learned position embeddings; sinusoids have no limit.
        copy: mix in copying source tokens by their attention (See et al., 2017, section 2.2, arXiv:1704.04368);
            requires a joint tokenizer.
        copy_attention: the attention used for copying.
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
    max_positions: int = field(default=1024, metadata={"used_if": ("model.positions", ("learned",))})
    attention: TransformerAttention = TransformerAttention.scaled_dot
    tie_embeddings: TieEmbeddings = TieEmbeddings.all
    copy: bool = False
    copy_attention: CopyAttention = field(default=CopyAttention.own, metadata={"used_if": ("model.copy", (True,))})

    def __post_init__(self) -> None:
        """Validates values and their combinations.

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
