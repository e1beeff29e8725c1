"""Models and search make tensors where their inputs are: seen by how they ask for them, which needs no GPU."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from seq2seq.inference.explanation import add_attention
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUAttention, GRUConfig
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import CopyAttention, PositionKind, TransformerConfig
from seq2seq.search.config import SearchConfig
from seq2seq.search.search import search

VOCABULARY = Vocabulary(30, 30, joint=True)
GRU = {"d_model": 8, "embedding_size": 8, "encoder_size": 4, "copy": True}
TRANSFORMER = {"d_model": 8, "d_ff": 16, "num_heads": 2, "copy": True}
MODELS = [
    GRUConfig(**GRU, coverage=True, decoder_layers=2),  # type: ignore[arg-type]
    GRUConfig(**GRU, input_feeding=False, attention=GRUAttention.dot),  # type: ignore[arg-type]
    TransformerConfig(**TRANSFORMER),  # type: ignore[arg-type]
    TransformerConfig(**TRANSFORMER, copy_attention=CopyAttention.own, positions=PositionKind.learned),  # type: ignore[arg-type]
]
SEARCHES = {
    "beam": {"beam_size": 3, "n_best": 2, "coverage_penalty": 0.2, "no_repeat_ngram": 2, "min_length": 2},
    "ratio": {"beam_size": 3, "max_length_ratio": 1.5},
    "greedy": {"beam_size": 1, "no_repeat_ngram": 2},
    "sampling": {"sampling": True, "n_best": 2, "top_k": 5, "top_p": 0.8},
}
# Functions that make tensors on the CPU, wherever the model is: for the host, or to be copied in one piece.
ON_THE_HOST = {"dropout.scaled_dropout_mask", "beam._step", "explanation.add_attention", "search.search"}


class Makers(TorchFunctionMode):
    """Notes which functions of the package make a tensor without a word on its device.

    Attributes:
        found: Their modules and names.
    """

    _NAMES = "arange empty eye full linspace ones rand randint randn randperm tensor zeros"
    _MAKERS = frozenset(getattr(torch, name) for name in _NAMES.split())

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._MAKERS and (kwargs or {}).get("device") is None:
            ours = [frame for frame in traceback.extract_stack() if "seq2seq" in Path(frame.filename).parts]
            function = next(frame for frame in reversed(ours) if frame.name != "<listcomp>")
            self.found.add(f"{Path(function.filename).stem}.{function.name}")
        return func(*args, **(kwargs or {}))


def build(config: Any) -> Seq2Seq:
    torch.manual_seed(1)
    return build_model(config, VOCABULARY)


def sources() -> torch.Tensor:
    src = torch.randint(4, 30, (5, 7))
    src[1, 3:] = VOCABULARY.pad_id
    return src


@pytest.mark.parametrize("settings", SEARCHES.values(), ids=SEARCHES)
def test_search_makes_tensors_where_the_model_is(settings: dict[str, Any]) -> None:
    models, src = [build(config).eval() for config in MODELS], sources()
    with Makers() as makers:
        for chosen in ([model] for model in models):
            config = SearchConfig(max_length=9, **settings)
            add_attention(search(chosen, src, config), chosen, src, precision=config.precision)
        search(models, src, SearchConfig(max_length=9, **settings))
    assert makers.found <= ON_THE_HOST


def test_training_makes_tensors_where_the_model_is() -> None:
    models, src, tgt, rows = [build(config).train() for config in MODELS], sources(), sources(), torch.arange(35)
    with Makers() as makers:
        for model in models:
            sums = Objective(model)(src, tgt, rows, tgt.flatten(), 0.1)
            (sums.loss + sums.coverage_loss).backward()
    assert makers.found == {"dropout.scaled_dropout_mask"}
