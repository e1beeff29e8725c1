"""Losses against a pass over one example at a time, scores against sacrebleu, ranks against one process."""

import math
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.encode import write_store
from seq2seq.data.store import TokenStore
from seq2seq.inference.evaluator import Evaluator, perplexity
from seq2seq.inference.generator import Generator
from seq2seq.metrics import MetricsConfig
from seq2seq.models.base import Seq2Seq
from seq2seq.models.build import build_model
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.pipeline.build import vocabulary
from seq2seq.search.config import SearchConfig
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.tokenizers.base import BOS_ID, EOS_ID
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import Tokenizers, train_tokenizers

TEXTS = [("a b c", "c b a"), ("d", "d"), ("e f a b c d", "d c b a f e"), ("", "a"), ("b b", ""), ("f e d c", "c d e f")]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    sources, targets = zip(*TEXTS, strict=True)
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=30)
    return train_tokenizers(lambda: iter(sources), lambda: iter(targets), config, seed=1)


@pytest.fixture(scope="module")
def store(tokenizers: Tokenizers, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return stored(tmp_path_factory.mktemp("store"), tokenizers, TEXTS)


def stored(folder: Path, tokenizers: Tokenizers, texts: list[tuple[str, str]], **limits: int) -> TokenStore:
    write_store(folder, [Example(s, t, (t,)) for s, t in texts], tokenizers, DataConfig(**limits), training=False)
    return TokenStore(folder)


@pytest.fixture
def model(tokenizers: Tokenizers) -> Seq2Seq:
    torch.manual_seed(2)
    config = TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=1, dropout=0.5)
    return build_model(config, vocabulary(tokenizers))


def evaluator(tokenizers: Tokenizers, world: World | None = None, **changes: Any) -> Evaluator:
    settings: dict[str, Any] = {
        "search": SearchConfig(beam_size=3, max_length=5), "batch_tokens": 8, "seed": 1, "target_language": None,
        "metrics": MetricsConfig(names=["bleu", "chrf"], bootstrap=0), "max_source_length": 50,
    } | changes  # fmt: skip
    return Evaluator(tokenizers, **settings, runtime=Runtime(CPU, Precision.fp32), world=world)


@torch.no_grad()
def by_hand(model: Seq2Seq, store: TokenStore, *, longest: int = 50) -> tuple[float, int, int]:
    """Sum of the loss, right tokens and all tokens, example by example."""
    model.eval()
    nll, right, tokens = 0.0, 0, 0
    for number in range(len(store)):
        src = torch.tensor([[*store.source_ids[number].tolist(), EOS_ID]])
        labels = torch.tensor([*store.target_ids[number].tolist()[: longest - 1], EOS_ID])
        tgt_in = torch.cat([torch.tensor([BOS_ID]), labels[:-1]])[None]
        features = model.decode(tgt_in, model.encode(src, torch.ones_like(src, dtype=torch.bool))).features[0]
        logits = F.linear(features, model.output.weight)
        nll += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        tokens += len(labels)
    return nll, right, tokens


def test_the_loss_is_that_of_a_teacher_forced_pass(tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq) -> None:
    nll, right, tokens = by_hand(model, store)
    assert tokens == sum(len(target.split()) + 1 for _, target in TEXTS)
    model.train()
    found = evaluator(tokenizers).loss(model, store)
    assert found == {
        "loss": pytest.approx(nll / tokens, rel=1e-5),
        "ppl": pytest.approx(math.exp(nll / tokens), rel=1e-5),
        "accuracy": pytest.approx(100 * right / tokens),
    }
    assert model.training, "as it was"
    model.eval()
    assert evaluator(tokenizers, batch_tokens=1000).loss(model, store)["loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert not model.training


def test_no_more_target_tokens_count_than_may(
    tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq, tmp_path: Path
) -> None:
    nll, _, tokens = by_hand(model, store, longest=3)
    short = stored(tmp_path, tokenizers, TEXTS, max_target_length=3)
    assert evaluator(tokenizers).loss(model, short)["loss"] == pytest.approx(nll / tokens, rel=1e-5)


def test_nothing_has_no_loss(tokenizers: Tokenizers, model: Seq2Seq, tmp_path: Path) -> None:
    empty = stored(tmp_path, tokenizers, [])
    assert evaluator(tokenizers).loss(model, empty) == {"loss": math.inf, "ppl": math.inf, "accuracy": 0.0}
    assert evaluator(tokenizers).generate([model], empty) == []


@pytest.mark.parametrize(("loss", "value"), [(0.0, 1.0), (2.0, math.e**2), (math.inf, math.inf), (math.nan, math.inf)])
def test_perplexity_is_the_exponential(loss: float, value: float) -> None:
    assert perplexity(loss) == pytest.approx(value)
    assert perplexity(1e6) > 1e300


class Rank(World):
    """One of three that do not hear of each other."""

    def __init__(self, rank: int, parts: list[Any] | None = None) -> None:
        super().__init__(rank, 3)
        self.parts = parts
        self.share: Any = None

    def sum(self, values: Tensor) -> Tensor:
        self.share = values.clone()
        assert values.dtype == torch.float64, "single precision counts to 16,777,216 only"
        return values

    def gather(self, value: Any) -> list[Any]:
        self.share = value
        return self.parts or [value] * 3


def test_ranks_share_the_examples_of_a_loss(tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq) -> None:
    ranks = [Rank(rank) for rank in range(3)]
    for rank in ranks:
        evaluator(tokenizers, rank).loss(model, store)
    assert all(rank.share[2] > 0 for rank in ranks), "each does something"
    assert sum(rank.share for rank in ranks).tolist() == pytest.approx(by_hand(model, store), rel=1e-5)


def test_ranks_share_the_sources_and_all_get_the_outputs(
    tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq
) -> None:
    model.eval()
    whole = evaluator(tokenizers).generate([model], store)
    assert len(set(whole)) > 2
    ranks = [Rank(rank) for rank in range(3)]
    for rank in ranks:
        rank.parts = [[""] * 2] * 3
        evaluator(tokenizers, rank).generate([model], store)
    assert [rank.share for rank in ranks] == [whole[rank::3] for rank in range(3)]
    everything = [rank.share for rank in ranks]
    assert evaluator(tokenizers, Rank(1, everything)).generate([model], store) == whole


def test_evaluations_during_training_are_greedy_whatever_the_search(
    tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq
) -> None:
    model.eval()
    search = SearchConfig(beam_size=1, max_length=5)
    plain = Generator([model], tokenizers, search, device=CPU, max_source_length=50, seed=1)
    expected = plain.generate([source for source, _ in TEXTS[:4]])
    for other in (SearchConfig(beam_size=4, n_best=3, max_length=5), SearchConfig(sampling=True, max_length=5)):
        found = evaluator(tokenizers, search=other)
        assert found.generate([model], store, examples=4, greedy=True) == expected
        assert [
            output.text for output in found.generate_with_attention(model, [source for source, _ in TEXTS[:4]])
        ] == expected
    assert len(evaluator(tokenizers).generate([model], store, examples=99)) == len(TEXTS)


def test_explanations_have_the_attention_of_each_token(tokenizers: Tokenizers, model: Seq2Seq) -> None:
    (output,) = evaluator(tokenizers).generate_with_attention(model.eval(), ["a b c"])
    assert output.source_tokens[:3] == ["a", "b", "c"]
    assert output.attention is not None
    assert output.attention.shape == (len(output.tokens), len(output.source_tokens))
    assert output.attention.sum(1).tolist() == pytest.approx([1.0] * len(output.tokens), abs=1e-5)


def test_a_validation_is_the_loss_and_the_scores_of_greedy_outputs(
    tokenizers: Tokenizers, store: TokenStore, model: Seq2Seq
) -> None:
    found = evaluator(tokenizers)
    outputs = found.generate([model], store, examples=3, greedy=True)
    loss = found.loss(model, store)
    assert found.validate(model, store, examples=3) == (loss | found.score(outputs, store), outputs)
    assert found.validate(model, store, examples=0) == (loss, [])
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    values, outputs = found.validate(model, store, examples=3)
    assert outputs == []
    assert not math.isfinite(values["loss"])


def test_scores_are_of_the_first_examples(tokenizers: Tokenizers, store: TokenStore) -> None:
    outputs = ["c b a", "d d", "d c b a f a"]
    references = [[target for _, target in TEXTS[:3]]]
    expected = {
        "bleu": sacrebleu.corpus_bleu(outputs, references).score,
        "chrf": sacrebleu.corpus_chrf(outputs, references, word_order=2).score,
    }
    found = evaluator(tokenizers)
    assert found.score(outputs, store) == pytest.approx(expected)
    assert {name: score.score for name, score in found.score_test(outputs, store).items()} == pytest.approx(expected)
    assert 0 < expected["bleu"] < 100
