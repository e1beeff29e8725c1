"""Beam search over a batch of sentences.

The stopping rule is "first come, first served" (Kasai et al. 2022, section 2, arXiv:2204.05424): a sentence
is done when as many hypotheses have ended as the beam is wide. With a beam of 1 this is greedy search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.config import SearchConfig
from seq2seq.search.constraints import NEVER, Constraints
from seq2seq.search.coverage_penalty import Coverage
from seq2seq.search.decoder import Decoder
from seq2seq.search.hypothesis import Hypothesis, StepRecord, backtrack
from seq2seq.search.lengths import normalizer
from seq2seq.search.schedule import rows_to_keep
from seq2seq.search.topk import best_candidates


@dataclass
class _Live:
    """What is known of the b sentences still in the batch.

    Attributes:
        sentences: [b] int64, their numbers at the start.
        limits: [b] int64, the most tokens they may have.
        scores: [b, K] log-probability of each live beam, best first; -inf for none.
        best_ended: [b, n_best] scores of the best hypotheses that ended, best first; -inf for none.
        ended: [b] int64, how many hypotheses have ended.
        done: [b] bool.
    """

    sentences: Tensor
    limits: Tensor
    scores: Tensor
    best_ended: Tensor
    ended: Tensor
    done: Tensor

    def keep(self, rows: Tensor) -> None:
        """Drops all sentences but the rows [b'] int64."""
        for name, value in list(vars(self).items()):
            setattr(self, name, value.index_select(0, rows))


class BeamSearch:
    """One run of the search; `run` does all.

    Args:
        decoder: gives next-token log-probabilities; started with one row a sentence.
        config: beam, lengths, normalisation, constraints.
        vocabulary: the special ids.
        coverage: of the same sentences, where there is a coverage penalty; the decoder gives attention then.
    """

    def __init__(
        self, decoder: Decoder, config: SearchConfig, vocabulary: Vocabulary, *, coverage: Coverage | None = None
    ) -> None:
        self.decoder = decoder
        self.config = config
        self.vocabulary = vocabulary
        self.constraints = Constraints(config, vocabulary)
        self.coverage = coverage
        self.tokens, self.parents = StepRecord(), StepRecord()
        self.end_scores, self.end_parents, self.cut_scores = StepRecord(), StepRecord(), StepRecord()
        self.penalties = StepRecord()  # [b, 2K] coverage penalties: of the K that end, of the K that go on

    def run(self, limits: Tensor) -> list[list[Hypothesis]]:
        """Up to n_best hypotheses of each sentence, best first; `limits` [B] int64 on their lengths."""
        count, width = limits.size(0), self.config.beam_size
        device = limits.device
        live = _Live(
            sentences=torch.arange(count, device=device),
            limits=limits,
            scores=torch.zeros(count, 1, device=device),
            best_ended=torch.full((count, self.config.n_best), NEVER, device=device),
            ended=torch.zeros(count, dtype=torch.int64, device=device),
            done=torch.zeros(count, dtype=torch.bool, device=device),
        )
        tokens = torch.full((count,), self.vocabulary.bos_id, device=device)
        for step in range(1, int(limits.max()) + 1):
            tokens, parents = self._advance(live, tokens, step)
            rows = rows_to_keep(live.done, step)
            if rows is not None:
                if rows.numel() == 0:
                    break
                self._drop(live, rows)
                tokens, parents = tokens.index_select(0, rows), parents.index_select(0, rows)
            if width > 1:
                self.decoder.reorder(parents)
            tokens = tokens.flatten()
        return self._hypotheses(count)

    def _advance(self, live: _Live, tokens: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Takes step `step` (from 1): updates `live`, returns its tokens and parents, both [b, K]."""
        width, eos_id = self.config.beam_size, self.vocabulary.eos_id
        log_probs, attention = self.decoder.step(tokens)
        self.constraints.apply(log_probs, step)
        # A beam ends in one way only, so among the best 2K there are at least K that go on.
        values, beams, picked = best_candidates(log_probs, live.scores, 2 * width)
        ends = picked == eos_id
        end_scores, end_parents = torch.where(ends, values, NEVER)[:, :width], beams[:, :width]
        self.end_scores.append(end_scores, live.sentences)
        self.end_parents.append(end_parents, live.sentences)
        order = torch.where(ends, 2 * width, 0) + torch.arange(2 * width, device=ends.device)
        going_on = order.topk(width, dim=1, largest=False).indices
        live.scores = values.gather(1, going_on)
        parents, chosen = beams.gather(1, going_on), picked.gather(1, going_on)
        self.tokens.append(chosen, live.sentences)
        self.parents.append(parents, live.sentences)
        self.constraints.advance(chosen, parents)
        normalized = end_scores / normalizer(torch.tensor(step), self.config)  # on the CPU: no wait for a copy
        if self.coverage is not None:
            penalties = self.coverage.add(attention).gather(1, torch.cat([end_parents, parents], dim=1))
            self.penalties.append(penalties, live.sentences)
            self.coverage.reorder(parents)
            normalized = normalized + penalties[:, :width]
        self._finish(live, normalized, step)
        return chosen, parents

    def _finish(self, live: _Live, end_scores: Tensor, step: int) -> None:
        """Counts the hypotheses that ended at `step` and marks the sentences that are done.

        Besides first come, first served, a sentence is done as soon as no live beam can still enter its
        n best: log-probabilities only fall, so a beam's score is at most its log-probability so far over
        the normalisation at the length limit, which grows with the length; the coverage penalty, never above
        zero, adds nothing to that.

        Args:
            live: is updated.
            end_scores: [b, K] of the hypotheses that ended, -inf for none.
            step: from 1.
        """
        at_limit = live.limits <= step
        cut = torch.where(at_limit.unsqueeze(1), live.scores, NEVER)
        self.cut_scores.append(cut, live.sentences)
        ranked = torch.cat([live.best_ended, end_scores], dim=1)
        live.best_ended = ranked.topk(self.config.n_best, dim=1).values
        live.ended = live.ended + (end_scores > NEVER).sum(dim=1)
        best_live = live.scores[:, 0] / normalizer(live.limits, self.config)
        beaten = live.best_ended[:, -1] >= best_live  # also when there is no live beam left: -inf >= -inf
        live.done = live.done | at_limit | beaten | (live.ended >= self.config.beam_size)
        # Whatever happens to a done sentence until it leaves must not count.
        live.scores = live.scores.masked_fill(live.done.unsqueeze(1), NEVER)

    def _drop(self, live: _Live, rows: Tensor) -> None:
        live.keep(rows)
        self.decoder.keep(rows)
        self.constraints.keep(rows)
        if self.coverage is not None:
            self.coverage.keep(rows)

    def _hypotheses(self, sentences: int) -> list[list[Hypothesis]]:
        """Reads the n best of each sentence back from the records."""
        ended = self.end_scores.stack(sentences, fill=NEVER)
        cut = self.cut_scores.stack(sentences, fill=NEVER)
        found: list[list[Hypothesis]] = [[] for _ in range(sentences)]
        width = self.config.beam_size
        log_probs = np.concatenate([ended, cut], axis=2)  # [T, B, 2K]: K that ended, K cut off
        steps, owners, slots = np.nonzero(log_probs > NEVER)
        values = log_probs[steps, owners, slots]
        scores = values / normalizer(torch.from_numpy(steps + 1), self.config).numpy()
        if self.coverage is not None:
            scores = scores + self.penalties.stack(sentences, fill=0.0)[steps, owners, slots]
        chosen = _first_of_each(owners, scores, self.config.n_best)
        steps, owners, slots = steps[chosen], owners[chosen], slots[chosen]
        finished = slots < width
        end_parents = self.end_parents.stack(sentences, fill=0)
        beams = np.where(finished, end_parents[steps, owners, slots % width], slots % width)
        ids = backtrack(
            self.tokens.stack(sentences, fill=0),
            self.parents.stack(sentences, fill=0),
            steps=np.where(finished, steps, steps + 1),
            sentences=owners,
            beams=beams,
        )
        for row, owner in enumerate(owners.tolist()):
            place = chosen[row]
            found[owner].append(Hypothesis(ids[row], float(scores[place]), float(values[place]), bool(finished[row])))
        return found


def _first_of_each(owners: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Positions of the `count` highest scores of each owner, owner by owner, best first."""
    order = np.lexsort((-scores, owners))
    sorted_owners = owners[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_owners, sorted_owners)
    return order[rank < count]
