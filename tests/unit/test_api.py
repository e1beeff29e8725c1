from __future__ import annotations

from typing import Any

import pytest

from seq2seq.api import copy_weights
from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig


def model(**changes: Any) -> Seq2Seq:
    return build_model(GRUConfig(d_model=8, embedding_size=8, encoder_size=4, **changes), Vocabulary(9, 9, joint=True))


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        ({}, {"copy": True}, "it has no output.gate.bias, which this model has, and 1 more differ; use"),
        ({"coverage": True}, {}, "it has score.coverage, which this model has not; use"),
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
