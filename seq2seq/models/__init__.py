"""The model families: a family's name, the class of its config, and the class that it configures."""

from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.gru import GRU, GRUConfig
from seq2seq.models.transformer import Transformer
from seq2seq.models.transformer_config import TransformerConfig

ModelConfig = GRUConfig | TransformerConfig
FAMILIES = {"gru": (GRUConfig, GRU), "transformer": (TransformerConfig, Transformer)}


def build_model(config: ModelConfig, vocabulary: Vocabulary) -> Seq2Seq:
    """The model that `config` describes, with random weights from torch's default generator.

    Raises:
        UserError: if it is to copy, or to tie all embeddings, but source and target do not share a vocabulary.
    """
    if config.copy and not vocabulary.joint:
        raise UserError(
            "model.copy=true needs one vocabulary for both sides: set tokenizer.joint=true or model.copy=false"
        )
    if isinstance(config, GRUConfig):
        return GRU(config, vocabulary)
    return Transformer(config, vocabulary)
