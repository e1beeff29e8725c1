"""Finished hypotheses, and the per-step record of the search they are read back from."""

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
        ids: the target tokens without the end of sentence.
        score: the log-probability divided by the length normalizer, plus the coverage penalty if there is one;
            hypotheses are ranked by it.
        log_prob: sum of the tokens' log-probabilities (nats), including the end of sentence if it was reached.
        ended: False if the hypothesis was cut off at its length limit.
        attention: [T, S] float32 on the CPU, if it was asked for: one row per token, including the end of sentence,
            one column per source token.
        copied: probability, 0 to 1, that each token (including the end of sentence) was copied from the source
            rather than generated; if attention was asked for and a model copies.
    """

    ids: list[int]
    score: float
    log_prob: float
    ended: bool
    attention: Tensor | None = None
    copied: list[float] | None = None

    @property
    def length(self) -> int:
        """Number of tokens, including the end of sentence."""
        return len(self.ids) + self.ended


class StepHistory:
    """Collects a small tensor per step, with one row for each sentence still in the batch.

    Prefixes are never copied: hypotheses are read back through their parents when the search is over.
    """

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._sentences: list[Tensor] = []

    def append(self, values: Tensor, sentences: Tensor) -> None:
        """Adds a step's `values` [b, C] of the `sentences` [b], as indices into the original batch."""
        self._values.append(values)
        self._sentences.append(sentences)

    def stack(self, num_sentences: int, *, fill: float) -> npt.NDArray[Any]:
        """Returns all steps as one array [steps, B, C] on the CPU, with `fill` where a sentence had left the batch."""
        first = self._values[0]
        stacked = first.new_full((len(self._values), num_sentences, first.size(1)), fill)
        for step, (values, sentences) in enumerate(zip(self._values, self._sentences, strict=True)):
            stacked[step].index_copy_(0, sentences, values)
        return stacked.cpu().numpy()


def backtrack(
    tokens: IntArray, parents: IntArray, *, lengths: IntArray, sentences: IntArray, beams: IntArray
) -> list[list[int]]:
    """Reconstructs M hypotheses by following their parents from the last token to the first.

    Args:
        tokens: [T, B, K], the token that each beam took at each step.
        parents: [T, B, K], the beam of the previous step that it continues.
        lengths: [M], the number of tokens of each hypothesis.
        sentences: [M], its sentence.
        beams: [M], its beam at its last step.

    Returns:
        M lists of token ids.
    """
    longest = int(lengths.max(initial=0))
    ids = np.zeros((len(lengths), longest), dtype=np.int64)
    beams = beams.copy()
    for step in range(longest - 1, -1, -1):
        rows = np.nonzero(lengths > step)[0]
        index = (step, sentences[rows], beams[rows])
        ids[rows, step] = tokens[index]
        beams[rows] = parents[index]
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
