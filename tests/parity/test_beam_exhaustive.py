"""A beam wide enough to drop nothing finds what the enumeration of all sequences finds, coverage penalty and all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.beam import BeamSearch
from seq2seq.search.config import LengthNormalization, SearchConfig
from seq2seq.search.coverage_penalty import CoveragePenalty
from seq2seq.search.decoder import Prediction
from seq2seq.search.hypothesis import Hypothesis

PAD, UNK, BOS, EOS = 0, 1, 2, 3
V = 7
LETTERS = [token for token in range(V) if token not in (PAD, BOS, EOS)]
VOCABULARY = Vocabulary(V, V, joint=True)
LIMIT = 4
# At most 4 + 16 + 64 + 256 prefixes: nothing is ever dropped.
WIDE = 400


class Table:
    """The next token's log-probabilities from the last two tokens; a table [V, V, V] for each sentence.

    The attention comes from them too, from tables [V, V, S].
    """

    def __init__(self, tables: Tensor, attentions: Tensor | None = None) -> None:
        self.tables = tables
        self.attentions = attentions
        self.last = torch.full((tables.size(0), 1), PAD)
        self.before: Tensor | None = None

    def step(self, tokens: Tensor) -> Prediction:
        tokens = tokens.view(self.tables.size(0), -1)
        before = torch.full_like(tokens, PAD) if self.before is None else self.before
        self.before = tokens
        rows = torch.arange(tokens.size(0)).unsqueeze(1)
        log_probs = self.tables[rows, before, tokens].flatten(0, 1)
        if self.attentions is None:
            return Prediction(log_probs)
        return Prediction(log_probs, self.attentions[rows, before, tokens].flatten(0, 1))

    def reorder(self, parents: Tensor) -> None:
        assert self.before is not None
        self.before = self.before.gather(1, parents)

    def keep(self, sentences: Tensor) -> None:
        self.tables = self.tables[sentences]
        self.attentions = None if self.attentions is None else self.attentions[sentences]
        assert self.before is not None
        self.before = self.before[sentences]


def tables(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, V, V, V, generator=generator).mul(1.5).log_softmax(-1)


def allowed(sequence: tuple[int, ...], config: SearchConfig) -> bool:
    """Whether tokens (the end included if it is there) keep to min_length and no_repeat_ngram."""
    n = config.no_repeat_ngram
    if n:
        grams = [sequence[i : i + n] for i in range(len(sequence) - n + 1)]
        if len(grams) != len(set(grams)):
            return False
    return sequence[-1] != EOS or len(sequence) >= config.min_length


def normalizer(length: int, config: SearchConfig) -> float:
    base = {"wu": (5 + length) / 6, "average": float(length), "none": 1.0}
    return base[config.length_normalization.value] ** config.length_penalty


# Four sources: words, end of sentence, padding.
SRC = torch.tensor([[4, 5, 6, 4, 3], [5, 3, 0, 0, 0], [6, 6, 5, 3, 0], [3, 0, 0, 0, 0]])


def attention_tables(src: Tensor, seed: int = 0) -> Tensor:
    """Sharp random attention [B, V, V, S]; letters of even id leave the first word with none at all."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(src.size(0), V, V, src.size(1), generator=generator).mul(8)
    scores = scores.masked_fill((src == PAD)[:, None, None], -math.inf)
    scores[:3, :, ::2, 0] = -1e4
    return scores.softmax(-1)


def coverage_penalty(context: tuple[int, ...], attention: Tensor, source: Sequence[int], weight: float) -> float:
    """Wu et al. (2016, eq. 14) by hand: of a hypothesis after its context of two ids, given attention [V, V, S]."""
    total = 0.0
    for i, token in enumerate(source):
        if token not in (PAD, EOS):
            given = math.fsum(float(attention[context[j], context[j + 1], i]) for j in range(len(context) - 2))
            total += math.log(min(max(given, 1e-10), 1.0))
    return weight * total


def enumerate_all(
    table: Tensor, config: SearchConfig, limit: int, *, attention: Tensor | None = None, source: Sequence[int] = ()
) -> list[tuple[float, float, list[int]]]:
    """All hypotheses as (score, log_prob, ids), best first."""
    found = []
    for length in range(1, limit + 1):
        for letters in itertools.product(LETTERS, repeat=length - 1):
            for last in [EOS, *LETTERS] if length == limit else [EOS]:
                sequence = (*letters, last)
                if not allowed(sequence, config):
                    continue
                context = (PAD, BOS, *sequence)
                log_prob = math.fsum(float(table[context[i], context[i + 1], context[i + 2]]) for i in range(length))
                score = log_prob / normalizer(length, config)
                if attention is not None:
                    score += coverage_penalty(context, attention, source, config.coverage_penalty)
                found.append((score, log_prob, [token for token in sequence if token != EOS]))
    return sorted(found, key=lambda entry: -entry[0])


@pytest.mark.parametrize("normalization", list(LengthNormalization))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize(("min_length", "ngram"), [(0, 0), (3, 0), (0, 1), (0, 2), (4, 2)])
def test_wide_beam_equals_enumeration(
    normalization: LengthNormalization, penalty: float, min_length: int, ngram: int
) -> None:
    config = SearchConfig(
        beam_size=WIDE,
        n_best=6,
        length_penalty=penalty,
        length_normalization=normalization,
        min_length=min_length,
        max_length=LIMIT,
        no_repeat_ngram=ngram,
    )
    all_tables = tables(3)
    limits = torch.tensor([LIMIT, LIMIT - 1, LIMIT])
    if min_length > LIMIT - 1:
        limits[1] = LIMIT
    found = BeamSearch(Table(all_tables), config, VOCABULARY).run(limits)
    for table, limit, hypotheses in zip(all_tables, limits.tolist(), found, strict=True):
        best = enumerate_all(table, config, limit)[:6]
        assert [h.ids for h in hypotheses] == [ids for _, _, ids in best]
        for hypothesis, (score, log_prob, _) in zip(hypotheses, best, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-5)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)


def test_early_stop_changes_nothing() -> None:
    """The bound that lets a sentence leave early is exact: asking for 1 gives the first of the 6."""
    for normalization in LengthNormalization:
        results = []
        for n_best in (1, 6):
            config = SearchConfig(beam_size=WIDE, n_best=n_best, max_length=6, length_normalization=normalization)
            search = BeamSearch(Table(tables(8, seed=1)), config, VOCABULARY)
            results.append([h[0].ids for h in search.run(torch.full((8,), 6))])
        assert results[0] == results[1]


def search_covered(config: SearchConfig, limits: Tensor) -> list[list[Hypothesis]]:
    decoder = Table(tables(4, seed=2), attention_tables(SRC))
    coverage = CoveragePenalty(config.coverage_penalty, SRC, VOCABULARY)
    return BeamSearch(decoder, config, VOCABULARY, coverage=coverage).run(limits)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("weight", [0.02, 0.2, 2.0])
def test_wide_beam_equals_enumeration_with_a_coverage_penalty(weight: float, penalty: float) -> None:
    config = SearchConfig(
        beam_size=WIDE, n_best=6, length_penalty=penalty, coverage_penalty=weight, max_length=LIMIT, no_repeat_ngram=2
    )
    limits = torch.tensor([LIMIT, LIMIT, LIMIT - 1, LIMIT])
    decided = []
    for index, hypotheses in enumerate(search_covered(config, limits)):
        table, limit, source = tables(4, seed=2)[index], int(limits[index]), SRC[index].tolist()
        best = enumerate_all(table, config, limit, attention=attention_tables(SRC)[index], source=source)[:6]
        decided.append([ids for _, _, ids in best] != [ids for _, _, ids in enumerate_all(table, config, limit)[:6]])
        assert [h.ids for h in hypotheses] == [ids for _, _, ids in best]
        for hypothesis, (score, log_prob, _) in zip(hypotheses, best, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)
    assert decided[0]
    assert not decided[3]  # a source without words


@pytest.mark.parametrize("weight", [0.02, 0.2, 2.0])
def test_early_stop_changes_nothing_with_a_coverage_penalty(weight: float) -> None:
    results = []
    for n_best in (1, 6):
        config = SearchConfig(beam_size=WIDE, n_best=n_best, coverage_penalty=weight, max_length=6)
        results.append([h[0].ids for h in search_covered(config, torch.full((4,), 6))])
    assert results[0] == results[1]
