"""What the search may not depend on, and what its numbers must be, on small models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.models.objective import Objective
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.search.beam import BeamSearch
from seq2seq.search.config import SearchConfig
from seq2seq.search.decoder import ModelDecoder
from seq2seq.search.greedy import greedy_search
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.lengths import length_limits
from seq2seq.search.search import search

SIZE = 24
STEPS = 60
VOCABULARY = Vocabulary(SIZE, SIZE, joint=True)
GREEDY = SearchConfig(beam_size=1, max_length=14)
BEAM = SearchConfig(beam_size=4, n_best=3, max_length=14, max_length_ratio=0.5)
SAMPLING = SearchConfig(sampling=True, n_best=3, max_length=6, temperature=0.9, seed=7)
COVERAGE = replace(BEAM, coverage_penalty=0.2)
CONFIGS = {
    "greedy": GREEDY,
    "beam": BEAM,
    "beam, 2-grams": replace(BEAM, no_repeat_ngram=2, min_length=5),
    "beam, coverage": COVERAGE,
    "sampling": SAMPLING,
    "top-k": replace(SAMPLING, top_k=5),
    "top-p": replace(SAMPLING, top_p=0.8, no_repeat_ngram=2, coverage_penalty=0.2),
}
# What summaries are searched with, one by one and together.
SUMMARIES = {
    "greedy": GREEDY,
    "lengths": replace(BEAM, min_length=4, max_length=9, max_length_ratio=None, length_penalty=2.0),
    "coverage": COVERAGE,
    "all": replace(COVERAGE, min_length=4, no_repeat_ngram=2, length_penalty=0.6),
}


def half_trained(family: str, *, copy: bool = False) -> Seq2Seq:
    """A model that has begun to learn to copy: its hypotheses end, at different lengths, and beams disagree.

    Random weights would not do: with them nothing ends before the limit.
    """
    torch.manual_seed(0)
    config = (
        TransformerConfig(d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=2, copy=copy)
        if family == "transformer"
        else GRUConfig(d_model=16, embedding_size=16, encoder_size=8, copy=copy, coverage=copy)
    )
    model = build_model(config, VOCABULARY)
    objective = Objective(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(STEPS):
        texts = sources(32, seed=100 + step)
        src, tgt_in = pad(texts), pad([[2, *ids[:-1]] for ids in texts])
        rows = (src != 0).flatten().nonzero().squeeze(1)
        sums = objective(src, tgt_in, rows, src.flatten()[rows], 0.0)
        optimizer.zero_grad()
        (sums.loss / sums.tokens).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", params=["transformer", "gru"])
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return half_trained(request.param)


@pytest.fixture(scope="module", params=["transformer", "gru"])
def copying_model(request: pytest.FixtureRequest) -> Seq2Seq:
    return half_trained(request.param, copy=True)


def sources(count: int = 12, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [[*torch.randint(4, SIZE, (n,), generator=generator).tolist(), 3] for n in lengths]


def pad(sequences: list[list[int]], width: int = 0) -> Tensor:
    width = max(width, *map(len, sequences))
    return torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])


def assert_same(one: list[list[Hypothesis]], other: list[list[Hypothesis]]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert [h.ids for h in left] == [h.ids for h in right]
        assert [h.ended for h in left] == [h.ended for h in right]
        assert [h.score for h in left] == pytest.approx([h.score for h in right], abs=1e-4)


def test_the_models_are_a_fair_test(model: Seq2Seq) -> None:
    """Hypotheses of many lengths, some cut off: sentences do leave the batch at different steps."""
    found = search([model], pad(sources()), GREEDY)
    lengths = {hypotheses[0].length for hypotheses in found}
    assert len(lengths) > 3
    every = [search([model], pad(sources()), config) for config in CONFIGS.values()]
    assert len({h.ended for found in every for hypotheses in found for h in hypotheses}) == 2


@torch.no_grad()
@pytest.mark.parametrize("ngram", [0, 2])
def test_beam_of_one_is_greedy(model: Seq2Seq, ngram: int) -> None:
    config = replace(GREEDY, no_repeat_ngram=ngram, min_length=3)
    src = pad(sources())
    limits = length_limits((src != 0).sum(1), config)
    beam = BeamSearch(ModelDecoder([model], src), config, VOCABULARY).run(limits)
    greedy = greedy_search(ModelDecoder([model], src), limits, config, vocabulary=VOCABULARY)
    assert_same(beam, greedy)


def assert_alone_as_together(model: Seq2Seq, config: SearchConfig) -> None:
    """A batch, its sentences one by one, and the batch shuffled with more padding give the same."""
    texts = sources()
    together = search([model], pad(texts), config, seed=3)
    alone = [
        search([model], pad([ids]), config, seed=3, sentence_indices=torch.tensor([index]))[0]
        for index, ids in enumerate(texts)
    ]
    assert_same(together, alone)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(5))
    src = pad([texts[i] for i in order.tolist()], width=20)
    shuffled = search([model], src, config, seed=3, sentence_indices=order)
    assert_same([together[i] for i in order.tolist()], shuffled)


@pytest.mark.parametrize("name", CONFIGS)
def test_neighbours_and_padding_change_nothing(model: Seq2Seq, name: str) -> None:
    assert_alone_as_together(model, CONFIGS[name])


@pytest.mark.parametrize("name", SUMMARIES)
def test_neighbours_and_padding_change_nothing_of_copying(copying_model: Seq2Seq, name: str) -> None:
    assert_alone_as_together(copying_model, SUMMARIES[name])


@torch.no_grad()
def forced_score(
    model: Seq2Seq, source: list[int], hypothesis: Hypothesis, config: SearchConfig
) -> tuple[float, float]:
    """A hypothesis' score and log-probability from one pass over it, by the formulas of Wu et al. (2016, eq. 14)."""
    target = [*hypothesis.ids, 3] if hypothesis.ended else hypothesis.ids
    src = torch.tensor([source])
    memory = model.encode(src, model.source_mask(src))
    hidden = model.decode(torch.tensor([[2, *target[:-1]]]), memory, need_attention=True)
    assert hidden.attention is not None
    log_prob = float(model.output.log_probs(hidden)[0, torch.arange(len(target)), target].sum())
    given = hidden.attention[0, :, :-1].sum(0).tolist()  # to each word, without the end of sentence
    penalty = sum(math.log(min(max(total, 1e-10), 1.0)) for total in given)
    normalizer = ((5 + hypothesis.length) / 6) ** config.length_penalty
    return log_prob / normalizer + config.coverage_penalty * penalty, log_prob


def assert_scores_are_forced(model: Seq2Seq, config: SearchConfig) -> None:
    texts = sources()
    for source, hypotheses in zip(texts, search([model], pad(texts), config), strict=True):
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for hypothesis in hypotheses:
            expected = forced_score(model, source, hypothesis, config)
            assert (hypothesis.score, hypothesis.log_prob) == pytest.approx(expected, abs=1e-4)
            assert not {0, 2, 3} & set(hypothesis.ids)
            assert config.min_length <= hypothesis.length <= config.max_length
            assert hypothesis.ended or hypothesis.length >= min(10, config.max_length)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_forced_decoding(model: Seq2Seq, name: str) -> None:
    assert_scores_are_forced(model, CONFIGS[name])


@pytest.mark.parametrize("name", SUMMARIES)
def test_scores_of_copying_are_those_of_forced_decoding(copying_model: Seq2Seq, name: str) -> None:
    assert_scores_are_forced(copying_model, SUMMARIES[name])


def test_the_coverage_penalty_decides(model: Seq2Seq) -> None:
    """With it another hypothesis is the first now and then; next to none of it changes nothing."""
    every = replace(BEAM, n_best=4, max_length_ratio=None, length_penalty=0.0)
    strict = replace(every, coverage_penalty=1.0)
    plain, covered = (search([model], pad(sources()), config) for config in (every, strict))
    assert any(left[0].ids != right[0].ids for left, right in zip(plain, covered, strict=True))
    weak = search([model], pad(sources()), replace(every, coverage_penalty=1e-30))
    assert_same(plain, weak)


@pytest.mark.parametrize("name", ["beam", "beam, 2-grams"])
def test_no_hypothesis_comes_twice(model: Seq2Seq, name: str) -> None:
    for hypotheses in search([model], pad(sources()), CONFIGS[name]):
        assert len({(tuple(h.ids), h.ended) for h in hypotheses}) == len(hypotheses) == 3


def test_constraints_hold(model: Seq2Seq) -> None:
    for name in ("beam, 2-grams", "top-p"):
        config = CONFIGS[name]
        for hypothesis in (h for found in search([model], pad(sources()), config) for h in found):
            pairs = list(zip(hypothesis.ids, hypothesis.ids[1:], strict=False))
            assert len(pairs) == len(set(pairs))
            assert hypothesis.length >= config.min_length


@pytest.mark.parametrize("config", [GREEDY, BEAM])
def test_ensemble_of_twins_is_one_of_them(model: Seq2Seq, config: SearchConfig) -> None:
    src = pad(sources())
    assert_same(search([model, model], src, config), search([model], src, config))


def test_samples_depend_on_the_seed_only(model: Seq2Seq) -> None:
    src, config = pad(sources()), replace(SAMPLING, seed=None)
    first = search([model], src, config, seed=1)
    torch.rand(100)
    assert_same(first, search([model], src, config, seed=1))
    other = search([model], src, config, seed=2)
    assert [h.ids for f in first for h in f] != [h.ids for f in other for h in f]
    assert any(f[0].ids != f[1].ids for f in first)
