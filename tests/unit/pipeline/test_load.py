from __future__ import annotations

from typing import Any

import pytest

from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.pipeline.build import copy_weights, vocabulary
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers


def model(**changes: Any) -> Seq2Seq:
    return build_model(GRUConfig(d_model=8, embedding_size=8, encoder_size=4, **changes), Vocabulary(9, 9, joint=True))


def test_models_and_tokenizers_agree_on_reserved_ids() -> None:
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=20, joint=False)
    found = vocabulary(train_tokenizers(lambda: iter(["a b"]), lambda: iter(["a b c"]), config, seed=1))
    assert found == Vocabulary(6, 7, joint=False, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID)


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        ({}, {"copy": True}, "it has no output.gate.bias, which this model has, and 1 more differ; use"),
        ({"coverage": True}, {}, "it has score.coverage, which this model does not have; use"),
        (
            {"coverage": True, "attention_size": 8},
            {"coverage": True},
            "score.coverage has shape .8,. there and .256,. here",
        ),
    ],
    ids=["absent", "superfluous", "other shape"],
)
def test_weights_of_another_model_are_refused_by_name(given: Any, own: Any, message: str) -> None:
    weights = model(**given).state_dict()
    with pytest.raises(UserError, match=message):
        copy_weights(weights, model(**own), origin="outputs/other")
