"""Searches that follow one path a row: greedy search and sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.config import SearchConfig
from seq2seq.search.constraints import Constraints
from seq2seq.search.coverage_penalty import Coverage
from seq2seq.search.decoder import Decoder
from seq2seq.search.hypothesis import Hypothesis, StepRecord
from seq2seq.search.lengths import normalizer
from seq2seq.search.sampling import draw, uniforms
from seq2seq.search.schedule import rows_to_keep
from seq2seq.search.topk import best_token

# From log-probabilities [N, V], the step and the sentences [b] to log-probabilities [N] and tokens [N].
Choice = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]


def greedy_choice(log_probs: Tensor, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable token of each row."""
    return best_token(log_probs)


def sampling_choice(config: SearchConfig, numbers: Tensor, *, seed: int) -> Choice:
    """A choice at random, the same for a sentence with the same number [B] in any batch."""

    def choose(log_probs: Tensor, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
        uniform = uniforms(seed, step, numbers=numbers[sentences], samples=config.n_best)
        tokens = draw(log_probs, uniform.flatten(), config)
        return log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1), tokens

    return choose


@dataclass
class _ActiveRows:
    """The rows of the b sentences still in the batch, K rows each.

    Attributes:
        sentences: [b] int64, their numbers at the start.
        limits: [b, 1] int64, the most tokens they may have.
        done: [b, K] bool.
    """

    sentences: Tensor
    limits: Tensor
    done: Tensor


@dataclass
class _Paths:
    """What the rows did, [b, K] a step.

    Attributes:
        tokens: int64, padding after the end.
        log_probs: of the tokens, 0 after the end.
        penalties: the coverage penalty at the last token, 0 before and after; no steps where there is none.
    """

    tokens: StepRecord = field(default_factory=StepRecord)
    log_probs: StepRecord = field(default_factory=StepRecord)
    penalties: StepRecord = field(default_factory=StepRecord)


def greedy_search(
    decoder: Decoder,
    limits: Tensor,
    config: SearchConfig,
    *,
    vocabulary: Vocabulary,
    choose: Choice = greedy_choice,
    coverage: Coverage | None = None,
) -> list[list[Hypothesis]]:
    """`n_best` paths of each sentence, best first.

    Args:
        decoder: started with n_best rows a sentence.
        limits: [B] int64, the most tokens a hypothesis may have.
        config: constraints and length normalisation.
        vocabulary: the special ids.
        choose: picks a token a row.
        coverage: of the same sentences, where there is a coverage penalty; the decoder gives attention then.
    """
    count, width = limits.size(0), config.n_best
    constraints = Constraints(config, vocabulary)
    paths = _Paths()
    rows = _ActiveRows(
        sentences=torch.arange(count, device=limits.device),
        limits=limits.unsqueeze(1),
        done=torch.zeros(count, width, dtype=torch.bool, device=limits.device),
    )
    tokens = torch.full((count, width), vocabulary.bos_id, device=limits.device)
    no_move = torch.arange(width, device=limits.device).expand(count, width)
    for step in range(1, int(limits.max()) + 1):
        log_probs, attention = decoder.step(tokens.flatten())
        constraints.apply(log_probs, step)
        value, token = choose(log_probs, step, rows.sentences)
        # A row that is done goes on with padding until its sentence leaves.
        tokens = token.view_as(tokens).masked_fill(rows.done, vocabulary.pad_id)
        paths.tokens.append(tokens, rows.sentences)
        paths.log_probs.append(value.view_as(tokens).masked_fill(rows.done, 0.0), rows.sentences)
        constraints.advance(tokens, no_move[: tokens.size(0)])
        last = ~rows.done & ((tokens == vocabulary.eos_id) | (rows.limits <= step))
        if coverage is not None:
            paths.penalties.append(torch.where(last, coverage.add(attention), 0.0), rows.sentences)
        rows.done = rows.done | last
        staying = rows_to_keep(rows.done.all(dim=1), step)
        if staying is None:
            continue
        if staying.numel() == 0:
            break
        decoder.keep(staying)
        constraints.keep(staying)
        if coverage is not None:
            coverage.keep(staying)
        tokens = tokens.index_select(0, staying)
        rows = _ActiveRows(*(value.index_select(0, staying) for value in vars(rows).values()))
    return _hypotheses(paths, config, vocabulary=vocabulary, sentences=count)


def _hypotheses(
    paths: _Paths, config: SearchConfig, *, vocabulary: Vocabulary, sentences: int
) -> list[list[Hypothesis]]:
    """Reads the paths back: they end before the first padding."""
    tokens = paths.tokens.stack(sentences, fill=vocabulary.pad_id)  # [T, B, K]
    log_probs = paths.log_probs.stack(sentences, fill=0.0).astype(np.float64).sum(axis=0)  # [B, K]
    lengths = (tokens != vocabulary.pad_id).sum(axis=0)
    scores = log_probs / normalizer(torch.from_numpy(lengths), config).numpy()
    if config.coverage_penalty > 0:
        scores = scores + paths.penalties.stack(sentences, fill=0.0).sum(axis=0)
    found = []
    for sentence in range(sentences):
        of_sentence = []
        for row in range(tokens.shape[2]):
            ids = tokens[: lengths[sentence, row], sentence, row].tolist()
            ended = ids[-1:] == [vocabulary.eos_id]
            score, log_prob = float(scores[sentence, row]), float(log_probs[sentence, row])
            of_sentence.append(Hypothesis(ids[:-1] if ended else ids, score, log_prob, ended))
        found.append(sorted(of_sentence, key=lambda hypothesis: -hypothesis.score))
    return found
