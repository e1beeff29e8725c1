"""What a training step and a search cost, by counts that hold on any machine: a regression shows without a clock.

A bound is what was counted, and about 5 % more. Where a change makes a count smaller, lower its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seq2seq.data.batching import Batch
from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.search.config import SearchConfig
from seq2seq.search.search import search
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig
from seq2seq.training.step import TrainStep

V = 30
MODELS = ["transformer", "gru", "fed gru"]
# Operators whose result the host has to wait for, if it computes on another device.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "equal"}
BF16_KERNELS = hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and torch.ops.mkldnn._is_mkldnn_bf16_supported()

every_model = pytest.mark.parametrize("name", MODELS)


def model(name: str, vocabulary: int = V, *, layers: int = 2) -> Seq2Seq:
    torch.manual_seed(1)
    config = (
        TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=layers, decoder_layers=layers)
        if name == "transformer"
        else GRUConfig(d_model=16, embedding_size=16, encoder_size=8, attention_size=8, input_feeding="fed" in name)
    )
    return build_model(config, Vocabulary(vocabulary, vocabulary, joint=True))


def train_step(own: Seq2Seq, precision: Precision = Precision.fp32, **trainer: Any) -> TrainStep:
    runtime = Runtime(torch.device("cpu"), precision)
    return TrainStep(own.train(), TrainerConfig(**trainer), OptimConfig(), runtime=runtime, world=World(), seed=1)


def batches(examples: int, source: int, target: int, *, vocabulary: int = V) -> StepBatches:
    """One micro-batch without padding."""
    src, tgt = (torch.randint(4, vocabulary, (examples, length)) for length in (source, target))
    batch = Batch(src, tgt, torch.arange(tgt.numel()), tgt.flatten(), torch.arange(examples))
    return StepBatches([MicroBatch(batch, 1.0)], batch.tokens, 0.0, epoch=0, position=1, epoch_size=1)


@pytest.fixture
def count(operators: Any) -> Callable[..., Any]:
    """The operators of an update that is not the first one."""

    def counted(
        name: str, examples: int = 3, source: int = 5, target: int = 6, *, vocabulary: int = V,
        precision: Precision = Precision.fp32,
    ) -> Any:  # fmt: skip
        step = train_step(model(name, vocabulary), precision)
        work = batches(examples, source, target, vocabulary=vocabulary)
        step.run(work, step=0, lr=1e-3)
        with operators() as found:
            step.run(work, step=1, lr=1e-3)
        return found

    return counted


@pytest.mark.parametrize(
    ("name", "bound", "a_source_token", "a_target_token"),
    [("transformer", 1185, 0, 0), ("gru", 1160, 50, 67), ("fed gru", 1500, 50, 124)],
)
def test_operators_of_an_update(
    count: Callable[..., Any], name: str, bound: int, a_source_token: int, a_target_token: int
) -> None:
    """They do not grow with the batch and the vocabulary, nor with the lengths, but where there is a recurrence."""
    found = count(name)
    total = found.counts.total()
    assert total <= bound
    assert not WAITING & found.counts.keys()
    assert count(name, examples=16, vocabulary=300).counts.total() == total
    assert count(name, source=5 + 4).counts.total() - total <= 4 * a_source_token
    assert count(name, target=6 + 4).counts.total() - total <= 4 * a_target_token


@pytest.mark.skipif(not BF16_KERNELS, reason="no oneDNN in bfloat16")
@pytest.mark.parametrize(("name", "bound"), [("transformer", 1340), ("gru", 1260), ("fed gru", 1620)])
def test_operators_of_an_update_in_bfloat16(count: Callable[..., Any], name: str, bound: int) -> None:
    found = count(name, precision=Precision.bf16)
    assert found.counts.total() <= bound
    assert not WAITING & found.counts.keys()


@every_model
def test_no_update_holds_all_logits(count: Callable[..., Any], name: str) -> None:
    """A chunk of this vocabulary has 512 rows, in float32."""
    rows, vocabulary = 30 * 60, 9_000
    largest = count(name, examples=30, source=3, target=60, vocabulary=vocabulary).largest
    assert largest <= 4 * 512 * vocabulary < 4 * rows * vocabulary / 3


def test_no_long_sequences_make_scores_of_all_heads(count: Callable[..., Any]) -> None:
    """The largest is the causal mask as the fused kernel wants it, once for all sentences and heads."""
    assert count("transformer", examples=2, source=520, target=520).largest <= 4 * 520**2


@every_model
@pytest.mark.parametrize("beam_size", [1, 4])
def test_operators_of_a_search(operators: Any, name: str, beam_size: int) -> None:
    """A position takes as many as the one before, in a batch of any size."""
    bounds = {"transformer": (195, 240), "gru": (128, 186), "fed gru": (133, 190)}[name]
    own, src = model(name), torch.randint(4, V, (3, 5))

    def total(length: int, sources: Tensor) -> int:
        config = SearchConfig(beam_size=beam_size, min_length=length, max_length=length, max_length_ratio=None)
        with operators() as found:
            search([own], sources, config)
        return int(found.counts.total())

    few, some, many = (total(length, src) for length in (8, 16, 24))
    assert many - some <= 1.02 * (some - few), "caches grow now and then"
    assert (some - few) / 8 <= bounds[beam_size > 1]
    assert total(16, src.repeat(5, 1)) - some <= 2


@contextmanager
def counted_graphs() -> Iterator[tuple[Any, Counter[str]]]:
    """Counts graphs, and reasons of breaks between them, that `nn.Module.compile` traces, and compiles none."""
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter
    from torch._dynamo.utils import counters

    reset()
    counters.clear()
    graphs = CompileCounter()
    original = nn.Module.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", lambda self, **how: original(self, backend=graphs, **how))
        yield graphs, counters["graph_break"]
    reset()


@pytest.mark.parametrize(
    ("name", "graphs", "breaks"),
    [("transformer", 3, 2), *(pytest.param(name, 15, 14, marks=pytest.mark.slow) for name in MODELS[1:])],
)
def test_compiled_graphs_serve_all_shapes(name: str, graphs: int, breaks: int) -> None:
    """Each shape that is traced anew costs minutes, and after the eighth torch gives up."""
    with counted_graphs() as (traced, broken):
        step = train_step(model(name, layers=1), compile=True)
        for number, shape in enumerate([(3, 5, 6), (4, 7, 9), (5, 12, 8), (7, 30, 20), (9, 13, 24)]):
            step.run(batches(*shape), step=number, lr=1e-3)
        assert traced.frame_count <= graphs
        assert broken.total() <= breaks, broken
