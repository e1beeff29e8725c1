"""The model families: each one's name and the class of its configuration."""

from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer_config import TransformerConfig

ModelConfig = GRUConfig | TransformerConfig
FAMILIES: dict[str, type[ModelConfig]] = {"gru": GRUConfig, "transformer": TransformerConfig}
