"""Greedy search and sampling: each row extends a single hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.compaction import sentences_to_keep
from seq2seq.search.config import SearchConfig
from seq2seq.search.constraints import Constraints
from seq2seq.search.coverage_penalty import CoveragePenalty
from seq2seq.search.decoder import Decoder
from seq2seq.search.hypothesis import Hypothesis, StepHistory
from seq2seq.search.lengths import normalizer
from seq2seq.search.sampling import draw, uniforms
from seq2seq.search.topk import best_token

# From log-probabilities [N, V], the step and the sentences [b] to log-probabilities [N] and tokens [N].
Choice = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]


def greedy_choice(log_probs: Tensor, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """Chooses the most probable token of each row."""
    return best_token(log_probs)


def sampling_choice(config: SearchConfig, sentence_indices: Tensor, *, seed: int) -> Choice:
    """Returns a `Choice` that samples; a sentence with the same index [B] gets the same samples in any batch."""

    def choose(log_probs: Tensor, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
        uniform = uniforms(seed, step, sentence_indices=sentence_indices[sentences], num_samples=config.n_best)
        tokens = draw(log_probs, uniform.flatten(), config)
        return log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1), tokens

    return choose


@dataclass
class _ActiveRows:
    """State of the b sentences still in the batch, K rows each.

    Attributes:
        sentences: [b] int64, their indices in the original batch.
        limits: [b, 1] int64, the maximum length of their hypotheses in tokens.
        done: [b, K] bool.
    """

    sentences: Tensor
    limits: Tensor
    done: Tensor


@dataclass
class _History:
    """Tokens and scores of the rows, [b, K] per step.

    Attributes:
        tokens: int64, padding after the end.
        log_probs: of the tokens, 0 after the end.
        penalties: the coverage penalty at the last token, 0 before and after; empty without a coverage penalty.
    """

    tokens: StepHistory = field(default_factory=StepHistory)
    log_probs: StepHistory = field(default_factory=StepHistory)
    penalties: StepHistory = field(default_factory=StepHistory)


def greedy_search(
    decoder: Decoder,
    limits: Tensor,
    config: SearchConfig,
    *,
    vocabulary: Vocabulary,
    choose: Choice = greedy_choice,
    coverage: CoveragePenalty | None = None,
) -> list[list[Hypothesis]]:
    """Returns `n_best` hypotheses of each sentence, best first.

    Args:
        decoder: started with n_best rows per sentence.
        limits: [B] int64, the maximum length of a hypothesis in tokens.
        config: constraints and length normalisation.
        vocabulary: the special ids.
        choose: picks one token per row.
        coverage: the coverage penalty of the same sentences, if there is one; the decoder must then return attention.
    """
    num_sentences, width = limits.size(0), config.n_best
    constraints = Constraints(config, vocabulary)
    history = _History()
    active = _ActiveRows(
        sentences=torch.arange(num_sentences, device=limits.device),
        limits=limits.unsqueeze(1),
        done=torch.zeros(num_sentences, width, dtype=torch.bool, device=limits.device),
    )
    tokens = torch.full((num_sentences, width), vocabulary.bos_id, device=limits.device)
    identity = torch.arange(width, device=limits.device).expand(num_sentences, width)  # each row is its own parent
    for step in range(1, int(limits.max()) + 1):
        log_probs, attention = decoder.step(tokens.flatten())
        constraints.apply(log_probs, step)
        chosen_log_probs, chosen = choose(log_probs, step, active.sentences)
        # A row that is done is padded until its sentence leaves the batch.
        tokens = chosen.view_as(tokens).masked_fill(active.done, vocabulary.pad_id)
        history.tokens.append(tokens, active.sentences)
        history.log_probs.append(chosen_log_probs.view_as(tokens).masked_fill(active.done, 0.0), active.sentences)
        constraints.advance(tokens, identity[: tokens.size(0)])
        is_last = ~active.done & ((tokens == vocabulary.eos_id) | (active.limits <= step))
        if coverage is not None:
            history.penalties.append(torch.where(is_last, coverage.add(attention), 0.0), active.sentences)
        active.done = active.done | is_last
        rows = sentences_to_keep(active.done.all(dim=1), step)
        if rows is None:
            continue
        if rows.numel() == 0:
            break
        decoder.keep(rows)
        constraints.keep(rows)
        if coverage is not None:
            coverage.keep(rows)
        tokens = tokens.index_select(0, rows)
        active = _ActiveRows(*(value.index_select(0, rows) for value in vars(active).values()))
    return _hypotheses(history, config, vocabulary=vocabulary, num_sentences=num_sentences)


def _hypotheses(
    history: _History, config: SearchConfig, *, vocabulary: Vocabulary, num_sentences: int
) -> list[list[Hypothesis]]:
    """Reads the hypotheses back from the history: each ends before the first padding."""
    tokens = history.tokens.stack(num_sentences, fill=vocabulary.pad_id)  # [T, B, K]
    log_probs = history.log_probs.stack(num_sentences, fill=0.0).astype(np.float64).sum(axis=0)  # [B, K]
    lengths = (tokens != vocabulary.pad_id).sum(axis=0)
    scores = log_probs / normalizer(torch.from_numpy(lengths), config).numpy()
    if config.coverage_penalty > 0:
        scores = scores + history.penalties.stack(num_sentences, fill=0.0).sum(axis=0)
    results = []
    for sentence in range(num_sentences):
        hypotheses = []
        for row in range(tokens.shape[2]):
            ids = tokens[: lengths[sentence, row], sentence, row].tolist()
            ended = ids[-1:] == [vocabulary.eos_id]
            score, log_prob = float(scores[sentence, row]), float(log_probs[sentence, row])
            hypotheses.append(Hypothesis(ids[:-1] if ended else ids, score, log_prob, ended))
        results.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
    return results
