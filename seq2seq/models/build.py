"""Builds a model from its configuration."""

from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.families import ModelConfig
from seq2seq.models.gru import GRU
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer import Transformer


def build_model(config: ModelConfig, vocabulary: Vocabulary) -> Seq2Seq:
    """Builds the model that `config` describes, with random weights from torch's default generator.

    Raises:
        UserError: if copying or tying all embeddings is requested without a joint vocabulary.
    """
    if config.copy and not vocabulary.joint:
        raise UserError(
            "model.copy=true needs one vocabulary for both sides: set tokenizer.joint=true or model.copy=false"
        )
    if isinstance(config, GRUConfig):
        return GRU(config, vocabulary)
    return Transformer(config, vocabulary)
