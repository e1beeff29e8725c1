"""The model families and the contract they keep: a family is a config class and the class it configures."""

from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.transformer import Transformer, TransformerConfig

ModelConfig = TransformerConfig
FAMILIES = {"transformer": (TransformerConfig, Transformer)}


def build_model(config: ModelConfig, vocabulary: Vocabulary) -> Seq2Seq:
    """The model that `config` describes, with random weights from torch's default generator."""
    return FAMILIES[config.family][1](config, vocabulary)
