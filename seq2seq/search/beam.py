"""Beam search over a batch of sentences.

The stopping rule is "first come, first served" (Kasai et al. 2022, section 2, arXiv:2204.05424): a sentence
is done once as many of its hypotheses have ended as the beam is wide. With a beam of 1 this is greedy search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.compaction import sentences_to_keep
from seq2seq.search.config import SearchConfig
from seq2seq.search.constraints import NEG_INF, Constraints
from seq2seq.search.coverage_penalty import CoveragePenalty
from seq2seq.search.decoder import Decoder
from seq2seq.search.hypothesis import Hypothesis, StepHistory, backtrack
from seq2seq.search.lengths import normalizer
from seq2seq.search.topk import best_candidates


@dataclass
class _ActiveSentences:
    """State of the b sentences still in the batch.

    Attributes:
        sentences: [b] int64, their indices in the original batch.
        limits: [b] int64, the maximum length of their hypotheses in tokens.
        scores: [b, K] log-probability of each active beam, best first; -inf where there is none.
        best_ended: [b, n_best] scores of the best hypotheses that ended, best first; -inf where there is none.
        num_ended: [b] int64, how many hypotheses have ended.
        done: [b] bool.
    """

    sentences: Tensor
    limits: Tensor
    scores: Tensor
    best_ended: Tensor
    num_ended: Tensor
    done: Tensor

    def keep(self, rows: Tensor) -> None:
        """Drops all sentences except `rows` [b'] int64."""
        for name, value in list(vars(self).items()):
            setattr(self, name, value.index_select(0, rows))


class BeamSearch:
    """Beam search over one batch; call `run` once.

    Args:
        decoder: computes next-token log-probabilities; started with one row per sentence.
        config: beam size, length limits, normalisation, constraints.
        vocabulary: the special ids.
        coverage: the coverage penalty of the same sentences, if there is one; the decoder must then return attention.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: SearchConfig,
        vocabulary: Vocabulary,
        *,
        coverage: CoveragePenalty | None = None,
    ) -> None:
        self.decoder = decoder
        self.config = config
        self.vocabulary = vocabulary
        self.constraints = Constraints(config, vocabulary)
        self.coverage = coverage
        self.tokens, self.parents = StepHistory(), StepHistory()
        self.eos_scores, self.eos_parents, self.truncated_scores = StepHistory(), StepHistory(), StepHistory()
        self.penalties = StepHistory()  # [b, 2K] coverage penalties: K candidates that end, then the K new beams

    def run(self, limits: Tensor) -> list[list[Hypothesis]]:
        """Returns up to n_best hypotheses per sentence, best first; `limits` [B] int64 are their maximum lengths."""
        num_sentences, width = limits.size(0), self.config.beam_size
        device = limits.device
        active = _ActiveSentences(
            sentences=torch.arange(num_sentences, device=device),
            limits=limits,
            scores=torch.zeros(num_sentences, 1, device=device),
            best_ended=torch.full((num_sentences, self.config.n_best), NEG_INF, device=device),
            num_ended=torch.zeros(num_sentences, dtype=torch.int64, device=device),
            done=torch.zeros(num_sentences, dtype=torch.bool, device=device),
        )
        tokens = torch.full((num_sentences,), self.vocabulary.bos_id, device=device)
        for step in range(1, int(limits.max()) + 1):
            tokens, parents = self._step(active, tokens, step)
            rows = sentences_to_keep(active.done, step)
            if rows is not None:
                if rows.numel() == 0:
                    break
                self._keep(active, rows)
                tokens, parents = tokens.index_select(0, rows), parents.index_select(0, rows)
            if width > 1:
                self.decoder.reorder(parents)
            tokens = tokens.flatten()
        return self._hypotheses(num_sentences)

    def _step(self, active: _ActiveSentences, tokens: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Extends all beams by one token at `step` (from 1).

        Returns:
            The new beams' tokens and parent beams, both [b, K]; `active` is updated.
        """
        width, eos_id = self.config.beam_size, self.vocabulary.eos_id
        log_probs, attention = self.decoder.step(tokens)  # [b × K, V], [b × K, S]; one row per sentence at first
        self.constraints.apply(log_probs, step)
        # Each beam has a single continuation with EOS, so at least K of the best 2K candidates do not end: all [b, 2K].
        candidate_scores, candidate_beams, candidate_tokens = best_candidates(log_probs, active.scores, 2 * width)
        is_eos = candidate_tokens == eos_id
        eos_scores = torch.where(is_eos, candidate_scores, NEG_INF)[:, :width]  # [b, K]
        eos_parents = candidate_beams[:, :width]
        self.eos_scores.append(eos_scores, active.sentences)
        self.eos_parents.append(eos_parents, active.sentences)
        # The new beams are the best K candidates without EOS, still best first.
        order = torch.where(is_eos, 2 * width, 0) + torch.arange(2 * width, device=is_eos.device)
        selected = order.topk(width, dim=1, largest=False).indices  # [b, K]
        active.scores = candidate_scores.gather(1, selected)
        parents, next_tokens = candidate_beams.gather(1, selected), candidate_tokens.gather(1, selected)
        self.tokens.append(next_tokens, active.sentences)
        self.parents.append(parents, active.sentences)
        self.constraints.advance(next_tokens, parents)
        final_scores = eos_scores / normalizer(torch.tensor(step), self.config)  # a CPU scalar: no synchronization
        if self.coverage is not None:
            penalties = self.coverage.add(attention).gather(1, torch.cat([eos_parents, parents], dim=1))
            self.penalties.append(penalties, active.sentences)
            self.coverage.reorder(parents)
            final_scores = final_scores + penalties[:, :width]
        self._finish(active, final_scores, step)
        return next_tokens, parents

    def _finish(self, active: _ActiveSentences, final_scores: Tensor, step: int) -> None:
        """Counts the hypotheses that ended at `step` and marks the sentences that are done.

        Apart from first come, first served, a sentence is done as soon as no active beam can still enter its
        n best: log-probabilities only fall, so a beam's final score is at most its current log-probability divided
        by the normalizer at the length limit, which grows with the length. The coverage penalty, never above zero,
        does not raise this bound.

        Args:
            active: is updated.
            final_scores: [b, K] scores of the hypotheses that ended at this step, -inf where there is none.
            step: from 1.
        """
        at_limit = active.limits <= step
        truncated_scores = torch.where(at_limit.unsqueeze(1), active.scores, NEG_INF)
        self.truncated_scores.append(truncated_scores, active.sentences)
        all_ended = torch.cat([active.best_ended, final_scores], dim=1)
        active.best_ended = all_ended.topk(self.config.n_best, dim=1).values
        active.num_ended = active.num_ended + (final_scores > NEG_INF).sum(dim=1)
        upper_bound = active.scores[:, 0] / normalizer(active.limits, self.config)
        beaten = active.best_ended[:, -1] >= upper_bound  # also without any active beam: -inf >= -inf
        active.done = active.done | at_limit | beaten | (active.num_ended >= self.config.beam_size)
        # A sentence that is done may stay in the batch for some steps; its beams must not yield hypotheses.
        active.scores = active.scores.masked_fill(active.done.unsqueeze(1), NEG_INF)

    def _keep(self, active: _ActiveSentences, rows: Tensor) -> None:
        active.keep(rows)
        self.decoder.keep(rows)
        self.constraints.keep(rows)
        if self.coverage is not None:
            self.coverage.keep(rows)

    def _hypotheses(self, num_sentences: int) -> list[list[Hypothesis]]:
        """Reads the n best hypotheses of each sentence back from the records."""
        width = self.config.beam_size
        eos_scores = self.eos_scores.stack(num_sentences, fill=NEG_INF)
        truncated_scores = self.truncated_scores.stack(num_sentences, fill=NEG_INF)
        scores_by_step = np.concatenate([eos_scores, truncated_scores], axis=2)  # [T, B, 2K]: K that ended, K cut off
        steps, sentences, slots = np.nonzero(scores_by_step > NEG_INF)
        log_probs = scores_by_step[steps, sentences, slots]
        scores = log_probs / normalizer(torch.from_numpy(steps + 1), self.config).numpy()
        if self.coverage is not None:
            scores = scores + self.penalties.stack(num_sentences, fill=0.0)[steps, sentences, slots]
        best = _best_per_sentence(sentences, scores, self.config.n_best)
        steps, sentences, slots = steps[best], sentences[best], slots[best]
        ended = slots < width
        eos_parents = self.eos_parents.stack(num_sentences, fill=0)
        ids = backtrack(
            self.tokens.stack(num_sentences, fill=0),
            self.parents.stack(num_sentences, fill=0),
            lengths=np.where(ended, steps, steps + 1),
            sentences=sentences,
            beams=np.where(ended, eos_parents[steps, sentences, slots % width], slots % width),
        )
        hypotheses: list[list[Hypothesis]] = [[] for _ in range(num_sentences)]
        for row, sentence in enumerate(sentences.tolist()):
            index = best[row]
            hypotheses[sentence].append(
                Hypothesis(ids[row], float(scores[index]), float(log_probs[index]), bool(ended[row]))
            )
        return hypotheses


def _best_per_sentence(
    sentences: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.int64]:
    """Returns the indices of the `count` highest scores of each sentence, ordered by sentence, best first."""
    order = np.lexsort((-scores, sentences))
    sorted_sentences = sentences[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_sentences, sorted_sentences)
    return order[rank < count]
