"""Tokens that a hypothesis may not take next: special ids, an early end, repeated n-grams."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.config import SearchConfig

NEG_INF = float("-inf")


class Constraints:
    """Sets the log-probabilities of forbidden tokens to -inf, in place.

    The others are not renormalised: scores remain the model's own.

    Args:
        config: `min_length` and `no_repeat_ngram`.
        vocabulary: the special ids; padding and beginning of sentence are never produced.
    """

    def __init__(self, config: SearchConfig, vocabulary: Vocabulary) -> None:
        self.min_length = config.min_length
        self.ngram = config.no_repeat_ngram
        self.eos_id = vocabulary.eos_id
        self.pad_id = vocabulary.pad_id
        self.bos_id = vocabulary.bos_id
        self._prefixes: Tensor | None = None  # [b, K, tokens so far] int64, only tracked to block n-grams

    def apply(self, log_probs: Tensor, step: int) -> None:
        """Forbids tokens at `step` (from 1) in `log_probs` [N, V]."""
        log_probs[:, self.pad_id] = NEG_INF
        log_probs[:, self.bos_id] = NEG_INF
        too_short = step < self.min_length
        eos_log_probs = log_probs[:, self.eos_id].clone() if too_short else None
        if too_short:
            log_probs[:, self.eos_id] = NEG_INF
        if self._prefixes is not None and self._prefixes.size(2) >= self.ngram:
            self._forbid_ngrams(log_probs, self._prefixes.flatten(0, 1))
            if eos_log_probs is not None:
                # Where every token is forbidden, end early: the hypothesis has no other continuation.
                dead_end = log_probs.amax(dim=1) == NEG_INF
                log_probs[:, self.eos_id] = torch.where(dead_end, eos_log_probs, log_probs[:, self.eos_id])

    def advance(self, tokens: Tensor, parents: Tensor) -> None:
        """Appends the step's `tokens` [b, K] to the prefixes of the previous beams `parents` [b, K]."""
        if self.ngram == 0:
            return
        latest = tokens.unsqueeze(2)
        if self._prefixes is None:
            self._prefixes = latest
            return
        index = parents.unsqueeze(2).expand(-1, -1, self._prefixes.size(2))
        self._prefixes = torch.cat([self._prefixes.gather(1, index), latest], dim=2)

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences except these (indices into the current batch)."""
        if self._prefixes is not None:
            self._prefixes = self._prefixes.index_select(0, sentences)

    def _forbid_ngrams(self, log_probs: Tensor, prefixes: Tensor) -> None:
        """Forbids the tokens that would complete an n-gram which the prefix already contains."""
        ngrams = prefixes.unfold(1, self.ngram, 1)  # [N, t - n + 1, n]
        context = prefixes[:, prefixes.size(1) - self.ngram + 1 :].unsqueeze(1)  # [N, 1, n - 1]
        matches = (ngrams[:, :, :-1] == context).all(dim=2)
        # The padding id is forbidden anyway, so n-grams that do not match scatter to it.
        forbidden = torch.where(matches, ngrams[:, :, -1], self.pad_id)
        log_probs.scatter_(1, forbidden, NEG_INF)
