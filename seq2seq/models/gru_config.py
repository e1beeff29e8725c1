"""The shape of a GRU encoder-decoder, and what its attention may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.models.config import LARGEST_SIZE, TieEmbeddings


class GRUAttention(str, Enum):
    """Scores of the attention; the two dot products need d_model = 2 × encoder_size."""

    additive = "additive"
    dot = "dot"
    general = "general"
    scaled_dot = "scaled_dot"


@dataclass
class GRUConfig:
    """The shape of a GRU encoder-decoder.

    Attributes:
        d_model: size of the decoder's state and of the features.
        embedding_size: of both sides.
        encoder_size: of each direction.
        dropout: on embeddings, between layers, and on the features.
        input_feeding: the decoder also reads its last attentional state (Luong et al., 2015, section 3.3).
        attention_size: inner size of additive attention.
        copy: mix in copying source tokens by their attention (See et al., 2017, section 2.2, arXiv:1704.04368); one
            tokenizer for both sides.
        coverage: additive attention also reads how much attention each position has had (section 2.3 there);
            `trainer.coverage_loss_weight` is the price of attending to the same again.
    """

    family: str = "gru"
    d_model: int = 256
    embedding_size: int = 256
    encoder_size: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 1
    dropout: float = 0.2
    input_feeding: bool = True
    attention: GRUAttention = GRUAttention.additive
    attention_size: int = 256
    tie_embeddings: TieEmbeddings = TieEmbeddings.all
    copy: bool = False
    coverage: bool = False

    def __post_init__(self) -> None:
        """Checks what no single type can say.

        Raises:
            UserError: naming the key.
        """
        sizes = (
            "d_model",
            "embedding_size",
            "encoder_size",
            "encoder_layers",
            "decoder_layers",
            "attention_size",
        )
        for name in sizes:
            if not 1 <= getattr(self, name) <= LARGEST_SIZE:
                raise UserError(f"model.{name}={getattr(self, name)} must be from 1 to {LARGEST_SIZE:,}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.dropout={self.dropout} must be at least 0 and below 1")
        if self.coverage and self.attention is not GRUAttention.additive:
            raise UserError(
                f"model.coverage=true is an input of additive attention: take model.attention=additive, not "
                f"{self.attention.value}"
            )
        dot = self.attention in (GRUAttention.dot, GRUAttention.scaled_dot)
        if dot and self.d_model != 2 * self.encoder_size:
            raise UserError(
                f"model.attention={self.attention.value} compares decoder states with encoder states: "
                f"model.d_model={self.d_model} must be 2 × model.encoder_size={2 * self.encoder_size}, "
                "or take model.attention=general"
            )
