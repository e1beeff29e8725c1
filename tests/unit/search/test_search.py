from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.search.beam import BeamSearch
from seq2seq.search.compaction import sentences_to_keep
from seq2seq.search.config import LengthNormalization, SearchConfig, SearchPrecision
from seq2seq.search.constraints import Constraints
from seq2seq.search.decoder import ModelDecoder, Prediction
from seq2seq.search.greedy import greedy_search
from seq2seq.search.lengths import length_limits
from seq2seq.search.sampling import draw, uniforms
from seq2seq.search.search import search
from seq2seq.search.topk import best_candidates, best_token

SIZE = 12
VOCABULARY = Vocabulary(SIZE, SIZE, joint=True)


@pytest.fixture(scope="module")
def models() -> list[Seq2Seq]:
    config = TransformerConfig(d_model=8, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1)
    built = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        built.append(build_model(config, VOCABULARY).eval())
    return built


SRC = torch.tensor([[5, 6, 7, 3], [8, 3, 0, 0]])


class Fixed:
    """A decoder whose next token depends on nothing but the step: log-probabilities [V] a step."""

    def __init__(self, steps: list[Tensor]) -> None:
        self.steps, self.time = steps, 0
        self.kept: list[list[int]] = []

    def step(self, tokens: Tensor) -> Prediction:
        row = self.steps[min(self.time, len(self.steps) - 1)]
        self.time += 1
        return Prediction(row.repeat(tokens.numel(), 1))

    def reorder(self, parents: Tensor) -> None:
        pass

    def keep(self, sentences: Tensor) -> None:
        self.kept.append(sentences.tolist())


def log_probs(**weights: float) -> Tensor:
    """A distribution over 12 tokens: `t5=0.5` gives token 5 one half; tokens not named get next to none."""
    row = torch.full((SIZE,), 1e-9)
    for name, weight in weights.items():
        row[int(name[1:])] = weight
    return (row / row.sum()).log()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"beam_size": 0}, "search.beam_size=0"),
        ({"batch_size": 0}, "search.batch_size=0"),
        ({"batch_tokens": 0}, "search.batch_tokens=0"),
        ({"n_best": 0}, "search.n_best=0"),
        ({"n_best": 6}, "search.n_best=6"),
        ({"max_length": 0}, "search.max_length=0"),
        ({"min_length": -1}, "search.min_length=-1"),
        ({"min_length": 9, "max_length": 8}, "search.min_length=9"),
        ({"max_length_ratio": 0.0}, "search.max_length_ratio=0.0"),
        ({"max_length_ratio": math.nan}, "search.max_length_ratio=nan"),
        ({"length_penalty": -0.5}, "search.length_penalty=-0.5"),
        ({"coverage_penalty": -0.1}, "search.coverage_penalty=-0.1"),
        ({"coverage_penalty": math.inf}, "search.coverage_penalty=inf"),
        ({"temperature": 0.0}, "search.temperature=0.0"),
        ({"top_k": -1}, "search.top_k=-1"),
        ({"top_p": 0.0}, "search.top_p=0.0"),
        ({"top_p": 1.5}, "search.top_p=1.5"),
        ({"no_repeat_ngram": -2}, "search.no_repeat_ngram=-2"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=key):
        SearchConfig(**settings)  # type: ignore[arg-type]


def test_sampling_may_draw_more_than_the_beam_holds() -> None:
    assert SearchConfig(sampling=True, n_best=20).n_best == 20


def test_limits() -> None:
    lengths = torch.tensor([1, 10, 1000])
    assert length_limits(lengths, SearchConfig(max_length=50)).tolist() == [50, 50, 50]
    assert length_limits(lengths, SearchConfig(max_length=50, max_length_ratio=1.5)).tolist() == [11, 25, 50]
    assert length_limits(lengths, SearchConfig(max_length=50, max_length_ratio=1e30)).tolist() == [50, 50, 50]
    # 3 × 1.1 is 3.3000000000000003, 10 × 1.1 exactly 11: no token is lost to rounding.
    assert length_limits(torch.tensor([3, 10]), SearchConfig(max_length_ratio=1.1)).tolist() == [13, 21]


@pytest.mark.parametrize("vocabulary", [5, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("width", [1, 3, 8])
def test_best_candidates_are_those_of_a_full_sort(vocabulary: int, width: int) -> None:
    torch.manual_seed(vocabulary)
    rows = torch.randn(4 * width, vocabulary).log_softmax(-1)
    scores = -torch.rand(4, width)
    scores[1, 1:] = -math.inf
    count = 2 * width
    values, beams, tokens = best_candidates(rows, scores, count)
    everything = (rows.view(4, width, vocabulary) + scores.unsqueeze(2)).flatten(1)
    expected, places = everything.sort(dim=1, descending=True)
    finite = expected[:, :count] > -math.inf
    assert torch.equal(values[:, : expected.size(1)], expected[:, :count])
    flat = beams * vocabulary + tokens
    assert torch.equal(flat[:, : expected.size(1)][finite], places[:, :count][finite])
    assert beams.max() < width
    assert tokens.max() < vocabulary


@pytest.mark.parametrize("vocabulary", [5, 64, 200])
def test_the_best_token_is_that_of_the_whole_row(vocabulary: int) -> None:
    rows = torch.randn(500, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    rows[:, -1] += 2  # often in the last, shorter chunk
    value, token = best_token(rows)
    expected = rows.max(dim=1)
    assert torch.equal(value, expected.values)
    assert torch.equal(token, expected.indices)


@pytest.mark.parametrize("count", [1, 7, 20])
def test_sentences_keep_their_rows_except_the_last_ones(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(20):
        done = torch.rand(20, generator=generator) < 1 - count / 20
        rows = sentences_to_keep(done, 1)
        active = (~done).nonzero().squeeze(1).tolist()
        if rows is None:
            assert len(active) > 18
            continue
        assert sorted(rows.tolist()) == active
        assert all(row == i or row >= len(active) for i, row in enumerate(rows.tolist()))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngrams_are_blocked_like_a_plain_loop_does(order: int) -> None:
    generator = torch.Generator().manual_seed(order)
    constraints = Constraints(SearchConfig(no_repeat_ngram=order), VOCABULARY)
    prefixes: list[list[int]] = [[] for _ in range(6)]
    for step in range(1, 15):
        rows = torch.zeros(6, SIZE)
        constraints.apply(rows, step)
        for prefix, row in zip(prefixes, rows, strict=True):
            grams = {tuple(prefix[i : i + order]) for i in range(len(prefix) - order + 1)}
            tail = prefix[len(prefix) - order + 1 :]
            blocked = {token for token in range(SIZE) if (*tail, token) in grams} | {0, 2}
            assert {token for token in range(SIZE) if row[token] == -math.inf} == blocked
        parents = torch.randint(0, 3, (2, 3), generator=generator)
        tokens = torch.randint(4, 8, (2, 3), generator=generator)
        prefixes = [
            [*prefixes[3 * sentence + parents[sentence, beam]], int(tokens[sentence, beam])]
            for sentence in range(2)
            for beam in range(3)
        ]
        constraints.advance(tokens, parents)


def test_a_hypothesis_that_cannot_go_on_ends_early() -> None:
    """Ten tokens, none twice, but at least 12 asked for."""
    config = SearchConfig(beam_size=2, no_repeat_ngram=1, min_length=12, max_length=20)
    flat = torch.full((SIZE,), 1 / SIZE).log()
    (found,) = BeamSearch(Fixed([flat]), config, VOCABULARY).run(torch.tensor([20]))
    assert sorted(found[0].ids) == [1, *range(4, 12)]
    assert found[0].ended


def test_uniforms_are_those_of_splitmix64() -> None:
    """In Python's integers: Steele et al. (2014), with the generator's published outputs for the seed 1234567."""

    def output(seed: int, number: int) -> int:
        bits = (seed + number * 0x9E3779B97F4A7C15) % 2**64
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    assert [output(1234567, number) for number in (1, 2)] == [6457827717110365317, 3203168211198807973]
    drawn = uniforms(11, 4, sentence_indices=torch.tensor([41, 7]), num_samples=3)
    for row, sentence in enumerate((41, 7)):
        of_samples = [output(output(11 + sentence, 1), sample + 1) for sample in range(3)]
        expected = [(output(state, 4) >> 41) / 2**23 for state in of_samples]
        assert drawn[row].tolist() == expected


def test_uniforms_are_uniform_and_distinct() -> None:
    drawn = torch.stack([uniforms(11, step, sentence_indices=torch.arange(100), num_samples=5) for step in range(100)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # 50,000 draws: standard error of the mean 0.0013; of each tenth's share also 0.0013.
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.006)
    assert (drawn.histc(10, 0, 1) / drawn.numel()).tolist() == pytest.approx([0.1] * 10, abs=0.006)
    steps, samples = drawn.flatten(1), drawn.transpose(0, 2).flatten(1)
    for table in (steps, samples, drawn.transpose(0, 1).flatten(1)):
        correlation = torch.corrcoef(table[:5]).fill_diagonal_(0)
        assert correlation.abs().max() < 0.15
    assert not torch.equal(drawn[0], uniforms(12, 0, sentence_indices=torch.arange(100), num_samples=5))
    few = uniforms(11, 4, sentence_indices=torch.tensor([41, 7]), num_samples=5)
    assert torch.equal(few, drawn[4][[41, 7]])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.0, 0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [0.0, 1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"top_k": 2}, [0.0, 0.0, 4 / 7, 0.0, 3 / 7]),
        ({"top_k": 50}, [0.0, 0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.65}, [0.0, 0.0, 4 / 7, 0.0, 3 / 7]),
        ({"top_p": 0.75}, [0.0, 0.0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1e-6}, [0.0, 0.0, 1.0, 0.0, 0.0]),
        ({"top_k": 3, "top_p": 0.7}, [0.0, 0.0, 4 / 7, 0.0, 3 / 7]),
        ({"top_k": 3, "top_p": 0.95}, [0.0, 0.0, 4 / 9, 2 / 9, 3 / 9]),
    ],
)
def test_draw_follows_the_distribution(settings: dict[str, float], expected: list[float]) -> None:
    """A fine grid of uniform numbers instead of random ones: shares are right to the grid's width."""
    row = torch.tensor([0.0, 0.1, 0.4, 0.2, 0.3]).log()
    grid = (torch.arange(2000) + 0.5) / 2000
    config = SearchConfig(sampling=True, **settings)  # type: ignore[arg-type]
    tokens = draw(row.repeat(2000, 1), grid, config)
    shares = torch.bincount(tokens, minlength=5) / 2000
    assert shares.tolist() == pytest.approx(expected, abs=0.002)


def test_draw_at_the_ends_of_the_unit_interval() -> None:
    row = torch.tensor([[-math.inf, math.log(0.3), math.log(0.7), -math.inf]])
    config = SearchConfig(sampling=True)
    assert draw(row, torch.tensor([0.0]), config).tolist() == [1]
    torch.manual_seed(0)
    last = torch.full((500,), 1 - 2.0**-23)
    rows = torch.randn(500, 1000).log_softmax(-1)
    rows[:, -1] = -math.inf
    for settings in ({}, {"top_k": 7}, {"top_p": 0.4}):
        drawn = draw(rows.clone(), last, SearchConfig(sampling=True, **settings))  # type: ignore[arg-type]
        assert drawn.max() < 999


def test_without_an_end_the_search_stops_at_the_limit() -> None:
    row = log_probs(t5=0.6, t6=0.4)
    row[3] = -math.inf
    limits = torch.tensor([4, 2])
    config = SearchConfig(beam_size=2, n_best=2)
    for found in (
        BeamSearch(Fixed([row]), config, VOCABULARY).run(limits),
        greedy_search(Fixed([row]), limits, SearchConfig(beam_size=1), vocabulary=VOCABULARY),
    ):
        assert found[0][0].ids == [5, 5, 5, 5]
        assert found[1][0].ids == [5, 5]
        assert not found[0][0].ended
        assert found[0][0].log_prob == pytest.approx(4 * math.log(0.6))


def test_a_beam_wider_than_the_vocabulary() -> None:
    row = log_probs(t3=0.5, t5=0.3, t6=0.2)
    config = SearchConfig(beam_size=200, n_best=5, max_length=3, length_penalty=0.0)
    (found,) = BeamSearch(Fixed([row]), config, VOCABULARY).run(torch.tensor([3]))
    # By probability: nothing 0.5, then "5" 0.15, "6" 0.1, "5 5" 0.045; cut off, "5 5 5" has 0.027.
    assert [h.ids for h in found[:4]] == [[], [5], [6], [5, 5]]


def test_first_come_first_served() -> None:
    """Two of two hypotheses end at step 1 and 2, so a better one of step 3 is not waited for."""
    steps = [
        log_probs(t5=0.6, t3=0.4),
        log_probs(t3=0.3, t6=0.7),
        log_probs(t3=1.0),
    ]
    config = SearchConfig(beam_size=2, n_best=2, length_penalty=3.0, max_length=50)
    decoder = Fixed(steps)
    (found,) = BeamSearch(decoder, config, VOCABULARY).run(torch.tensor([50]))
    assert decoder.time == 2
    assert [h.ids for h in found] == [[], [5]]


def test_the_search_ends_when_nothing_better_can_come() -> None:
    """Without normalisation a live beam below the ended one has lost; the long tail is not walked."""
    steps = [log_probs(t3=0.7, t5=0.3), log_probs(t5=0.5, t6=0.5)]
    decoder = Fixed(steps)
    config = SearchConfig(beam_size=4, length_normalization=LengthNormalization.none, max_length=50)
    (found,) = BeamSearch(decoder, config, VOCABULARY).run(torch.tensor([50]))
    assert decoder.time == 1
    assert found[0].ids == []


def test_the_search_ends_when_nothing_can_go_on() -> None:
    """One hypothesis ended where two were asked for, and no token but the end can be next: no step is wasted."""
    only_end = torch.full((SIZE,), -math.inf)
    only_end[VOCABULARY.eos_id] = 0.0
    decoder = Fixed([only_end])
    config = SearchConfig(beam_size=2, n_best=2, max_length=50)
    (found,) = BeamSearch(decoder, config, VOCABULARY).run(torch.tensor([50]))
    assert decoder.time == 1
    assert [h.ids for h in found] == [[]]


def test_done_sentences_leave(models: list[Seq2Seq]) -> None:
    decoder = Fixed([log_probs(t5=0.9, t6=0.1)])
    limits = torch.tensor([1, 3, 2, 3])
    greedy_search(decoder, limits, SearchConfig(beam_size=1), vocabulary=VOCABULARY)
    assert decoder.kept == [[3, 1, 2], [0, 1]]  # the last takes the place of the first; the others do not move
    assert decoder.time == 3


def test_ensemble_is_the_mean_of_probabilities(models: list[Seq2Seq]) -> None:
    tokens = torch.tensor([2, 2])
    with torch.no_grad():
        each = [ModelDecoder([model], SRC).step(tokens).log_probs.exp() for model in models]
        both = ModelDecoder(models, SRC).step(tokens).log_probs.exp()
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_ensemble_needs_one_vocabulary(models: list[Seq2Seq]) -> None:
    config = TransformerConfig(d_model=8, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1)
    other = build_model(config, Vocabulary(13, 13, joint=True))
    with pytest.raises(UserError, match="must share their vocabularies"):
        search([models[0], other], SRC, SearchConfig())


def test_modes_gradients_and_precision(models: list[Seq2Seq]) -> None:
    model = models[0]
    model.train()
    config = SearchConfig(beam_size=2, max_length=5)
    reduced = SearchConfig(beam_size=2, max_length=5, precision=SearchPrecision.bf16)
    assert search([model], SRC, config)[0][0].ids == search([model], SRC, config)[0][0].ids  # no dropout
    full, half = search([model], SRC, config)[0][0], search([model], SRC, reduced)[0][0]
    assert model.training
    assert torch.is_grad_enabled()
    assert half.log_prob != full.log_prob
    assert half.log_prob == pytest.approx(full.log_prob, rel=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert search([model], SRC, config)[0][0].log_prob == full.log_prob
    model.eval()


@pytest.mark.parametrize("config", [SearchConfig(beam_size=1), SearchConfig(), SearchConfig(sampling=True)])
def test_not_a_number_is_said_so(config: SearchConfig) -> None:
    shape = TransformerConfig(d_model=8, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1)
    model = build_model(shape, VOCABULARY)
    with torch.no_grad():
        model.output.weight.fill_(math.nan)
    config.max_length = 4
    with pytest.raises(UserError, match="not finite"):
        search([model], SRC, config)


def test_no_sources(models: list[Seq2Seq]) -> None:
    assert search(models, SRC[:0], SearchConfig()) == []
