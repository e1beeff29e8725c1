"""The model families: name and configuration class of each."""

from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer_config import TransformerConfig

ModelConfig = GRUConfig | TransformerConfig
FAMILIES: dict[str, type[ModelConfig]] = {"gru": GRUConfig, "transformer": TransformerConfig}
