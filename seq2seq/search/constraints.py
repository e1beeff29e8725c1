"""Which next tokens a hypothesis may not take: special ids, an early end, n-grams it has had."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.models.base import Vocabulary
from seq2seq.search.config import SearchConfig

NEVER = float("-inf")


class Constraints:
    """Sets the log-probabilities of forbidden tokens to -inf, in place.

    The rest is not renormalised: scores stay the model's own.

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
        self._prefixes: Tensor | None = None  # [b, K, tokens so far] int64, kept for n-grams only

    def apply(self, log_probs: Tensor, step: int) -> None:
        """Forbids tokens at `step` (from 1) in `log_probs` [N, V]."""
        log_probs[:, self.pad_id] = NEVER
        log_probs[:, self.bos_id] = NEVER
        early = step < self.min_length
        end = log_probs[:, self.eos_id].clone() if early else None
        if early:
            log_probs[:, self.eos_id] = NEVER
        if self._prefixes is not None and self._prefixes.size(2) >= self.ngram:
            self._forbid_ngrams(log_probs, self._prefixes.flatten(0, 1))
            if end is not None:
                # All tokens forbidden: an early end is better than a hypothesis that cannot go on.
                stuck = log_probs.amax(dim=1) == NEVER
                log_probs[:, self.eos_id] = torch.where(stuck, end, log_probs[:, self.eos_id])

    def advance(self, tokens: Tensor, parents: Tensor) -> None:
        """Takes in the step's choice: `tokens` [b, K] after the old beams `parents` [b, K]."""
        if self.ngram == 0:
            return
        latest = tokens.unsqueeze(2)
        if self._prefixes is None:
            self._prefixes = latest
            return
        index = parents.unsqueeze(2).expand(-1, -1, self._prefixes.size(2))
        self._prefixes = torch.cat([self._prefixes.gather(1, index), latest], dim=2)

    def keep(self, sentences: Tensor) -> None:
        """Drops all sentences but these (indices into the current batch)."""
        if self._prefixes is not None:
            self._prefixes = self._prefixes.index_select(0, sentences)

    def _forbid_ngrams(self, log_probs: Tensor, prefixes: Tensor) -> None:
        """Forbids the last token of each n-gram had before whose first n - 1 tokens end the prefix."""
        windows = prefixes.unfold(1, self.ngram, 1)  # [N, t - n + 1, n]
        context = prefixes[:, prefixes.size(1) - self.ngram + 1 :].unsqueeze(1)  # [N, 1, n - 1]
        seen = (windows[:, :, :-1] == context).all(dim=2)
        # The padding id is forbidden anyway, so it serves as the target of the windows that do not match.
        forbidden = torch.where(seen, windows[:, :, -1], self.pad_id)
        log_probs.scatter_(1, forbidden, NEVER)
