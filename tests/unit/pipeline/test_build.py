"""What is built from a configuration."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from seq2seq.config.parse import parse
from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.store import TokenStore
from seq2seq.models.build import build_model
from seq2seq.pipeline.build import build_evaluator, vocabulary
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.tokenizers.pair import train_tokenizers


class Ranks(World):
    """One of two processes; the other has the same sums."""

    def sum(self, values: Tensor) -> Tensor:
        return 2 * values


def test_an_evaluation_is_shared_by_the_processes(tmp_path: Path) -> None:
    config = parse({"tokenizer": {"kind": "char", "vocab_size": 300}, "model": {"d_model": 8, "num_heads": 2}})
    tokenizers = train_tokenizers(lambda: iter(["a b"]), lambda: iter(["a b"]), config.tokenizer, seed=1)
    write_store(tmp_path, iter([Example("a", "b", ("b",))]), tokenizers, DataConfig(), training=False)
    torch.manual_seed(1)
    model = build_model(config.model, vocabulary(tokenizers)).eval()
    runtime = Runtime(torch.device("cpu"), Precision.fp32)
    store = TokenStore(tmp_path)
    alone = build_evaluator(config, tokenizers, runtime=runtime).loss(model, store)
    assert build_evaluator(config, tokenizers, runtime=runtime, world=Ranks(0, 2)).loss(model, store) == alone
    nothing = build_evaluator(config, tokenizers, runtime=runtime, world=Ranks(1, 2)).loss(model, store)
    assert nothing["loss"] == pytest.approx(float("inf")), "the only batch is the other's"
