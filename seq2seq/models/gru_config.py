"""Configuration of the GRU encoder-decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.models.config import LARGEST_SIZE, TieEmbeddings


class GRUAttention(str, Enum):
    """Attention score functions; `dot` and `scaled_dot` require d_model = 2 × encoder_size."""

    additive = "additive"
    dot = "dot"
    general = "general"
    scaled_dot = "scaled_dot"


@dataclass
class GRUConfig:
    """Configuration of a GRU encoder-decoder.

    Attributes:
        d_model: size of the decoder's state and of the features.
        embedding_size: size of source and target embeddings.
        encoder_size: size of the encoder's state per direction.
        dropout: on embeddings, between layers, and on the features.
        input_feeding: the decoder also reads its previous attentional state (Luong et al., 2015, section 3.3).
        attention_size: inner size of additive attention.
        copy: mix in copying source tokens by their attention (See et al., 2017, section 2.2, arXiv:1704.04368);
            requires a joint tokenizer.
        coverage: additive attention also reads the sum of the attention so far (section 2.3 of the same paper);
            `trainer.coverage_loss_weight` penalises attending to the same position again.
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
    attention_size: int = field(default=256, metadata={"used_if": ("model.attention", ("additive",))})
    tie_embeddings: TieEmbeddings = TieEmbeddings.all
    copy: bool = False
    coverage: bool = False

    def __post_init__(self) -> None:
        """Validates values and their combinations.

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
                f"model.coverage=true needs additive attention: set model.attention=additive, not "
                f"{self.attention.value}"
            )
        dot = self.attention in (GRUAttention.dot, GRUAttention.scaled_dot)
        if dot and self.d_model != 2 * self.encoder_size:
            raise UserError(
                f"model.attention={self.attention.value} compares decoder states with encoder states: "
                f"model.d_model={self.d_model} must be 2 × model.encoder_size={2 * self.encoder_size}, "
                "or set model.attention=general"
            )
