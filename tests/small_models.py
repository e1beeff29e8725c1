"""Models that are small enough to compare with formulas, in tests that build them without a run."""

from typing import Any

import torch

from seq2seq.config.parse import parse
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model

V = 20
FAMILIES = ("gru", "transformer")
SMALL: dict[str, dict[str, Any]] = {
    "gru": {
        "d_model": 8, "embedding_size": 6, "encoder_size": 5, "attention_size": 7, "encoder_layers": 1,
        "decoder_layers": 1, "dropout": 0.0,
    },
    "transformer": {
        "d_model": 8, "d_ff": 12, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0,
        "max_positions": 8,
    },
}  # fmt: skip
LIMITS = {"data": {"max_source_length": 5, "max_target_length": 5}, "search": {"max_length": 5}}
SRC = torch.tensor([[5, 6, 7, 5, 3], [8, 9, 3, 0, 0]])
TGT = torch.tensor([[2, 6, 4, 9], [2, 8, 11, 5]])


def built(family: str, **settings: Any) -> Seq2Seq:
    """The small model of the family but for `settings`, all its weights random, biases and normalisations too."""
    section = {"family": family, **SMALL[family], **settings}
    config = parse({"model": section, **LIMITS})
    model = build_model(config.model, Vocabulary(V, V, joint=True)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model
