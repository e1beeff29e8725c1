"""Finished hypotheses, and the record of the search they are read back from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass
class Hypothesis:
    """One output of the search.

    Attributes:
        ids: the target tokens without end of sentence.
        score: the log-probability divided by the length normalisation, plus the coverage penalty where there is
            one; what hypotheses are ranked by.
        log_prob: the sum of the log-probabilities (nats) of the tokens, end of sentence included if it ended.
        ended: False if it was cut off at its length limit.
        attention: [T, S] float32 on the CPU if it was asked for: a row for each token, the end included,
            a column for each source token.
        copied: the probability, 0 to 1, that each token was copied from the source rather than generated, the end
            included; if attention was asked for and a model copies.
    """

    ids: list[int]
    score: float
    log_prob: float
    ended: bool
    attention: Tensor | None = None
    copied: list[float] | None = None

    @property
    def length(self) -> int:
        """Tokens, the end of sentence counted."""
        return len(self.ids) + self.ended


class StepRecord:
    """Collects one small tensor a step and sentence, while sentences leave the batch on the way.

    Prefixes are never copied: a hypothesis is read back through the parents when the search is over.
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._sentences: list[Tensor] = []

    def append(self, values: Tensor, sentences: Tensor) -> None:
        """Adds a step's `values` [b, C]; `sentences` [b] are the numbers of those still in the batch."""
        self._steps.append(values)
        self._sentences.append(sentences)

    def stack(self, sentences: int, *, fill: float) -> npt.NDArray[Any]:
        """All steps as one array [steps, B, C] on the CPU, `fill` where a sentence had left."""
        first = self._steps[0]
        whole = first.new_full((len(self._steps), sentences, first.size(1)), fill)
        for step, (values, rows) in enumerate(zip(self._steps, self._sentences, strict=True)):
            whole[step].index_copy_(0, rows, values)
        return whole.cpu().numpy()


def backtrack(
    tokens: IntArray, parents: IntArray, *, steps: IntArray, sentences: IntArray, beams: IntArray
) -> list[list[int]]:
    """Reads M hypotheses back from their last token to their first.

    Args:
        tokens: [T, B, K], the token that each beam took at each step.
        parents: [T, B, K], the beam of the step before that it went on from.
        steps: [M], how many tokens each hypothesis has.
        sentences: [M], its sentence.
        beams: [M], its beam at its last step.

    Returns:
        M lists of token ids.
    """
    longest = int(steps.max(initial=0))
    read = np.zeros((len(steps), longest), dtype=np.int64)
    beams = beams.copy()
    for step in range(longest - 1, -1, -1):
        rows = np.nonzero(steps > step)[0]
        at = (step, sentences[rows], beams[rows])
        read[rows, step] = tokens[at]
        beams[rows] = parents[at]
    return [row[:length].tolist() for row, length in zip(read, steps, strict=True)]
