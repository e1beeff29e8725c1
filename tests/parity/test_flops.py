"""The operations that log lines count, against those that torch's counter sees in a forward and a backward pass."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.config import TieEmbeddings
from seq2seq.models.families import ModelConfig
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import TransformerConfig

B, S, T, V = 16, 11, 13, 50  # no row is added to a batch of 16


def transformer(**changes: object) -> TransformerConfig:
    return TransformerConfig(d_model=32, d_ff=48, num_heads=4, encoder_layers=2, decoder_layers=3, **changes)  # type: ignore[arg-type]


def gru(**changes: object) -> GRUConfig:
    sizes = {"d_model": 32, "embedding_size": 24, "encoder_size": 20, "attention_size": 28}
    return GRUConfig(**(sizes | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        (transformer(), 0.0),
        (transformer(tie_embeddings=TieEmbeddings.none), 0.0),
        (transformer(copy=True), 0.0),
        # The first state of a recurrence is zero or no parameter: parts of its backward pass are left out.
        (gru(), 0.02),
        (gru(input_feeding=False), 0.02),
        (gru(attention=GRUAttention.general), 0.02),
        (gru(attention=GRUAttention.dot, encoder_size=16), 0.02),
        (gru(encoder_layers=2, decoder_layers=2, input_feeding=False), 0.02),
        (gru(copy=True, coverage=True, tie_embeddings=TieEmbeddings.none), 0.02),
    ],
)
def test_counted_operations_are_those_of_a_training_step(config: ModelConfig, tolerance: float) -> None:
    torch.manual_seed(1)
    model = build_model(config, Vocabulary(V, V, joint=True)).train()
    src, tgt_in = torch.randint(4, V, (B, S)), torch.randint(4, V, (B, T))
    rows = torch.arange(B * T - 16)  # the rest is padding
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        Objective(model)(src, tgt_in, rows, src.new_full(rows.shape, 5), 0.1).loss.backward()
    counted = model.multiplications().training_flops(B, S, T, target_tokens=len(rows))
    assert counted == pytest.approx(counter.get_total_flops(), rel=tolerance, abs=0)
