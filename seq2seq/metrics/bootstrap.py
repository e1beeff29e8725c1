"""Sufficient statistics of a metric, its corpus score, and the bootstrap over examples.

A corpus score is a function of the sum over examples of a few numbers each: counts of matching n-grams for
BLEU, an F1 and a one for a mean of F1. Drawing examples anew and summing their rows is all that a bootstrap
needs (Koehn 2004, "Statistical significance tests for machine translation evaluation", W04-3250).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Statistics:
    """What a metric needs of each example; a corpus score is a function of their sum.

    Attributes:
        signature: Package, version and settings, beginning with the number of references; nothing of a bootstrap.
        rows: float64 [N, C], C numbers an example.
        score: The corpus score, 0 to 100, of one sum of rows [C]. Lower is better for those in LOWER_IS_BETTER.
    """

    signature: str
    rows: NDArray[np.float64]
    score: Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True)
class Score:
    """One corpus score with what it takes to reproduce it.

    Attributes:
        score: 0 to 100; higher is better except for TER, which counts edits for each 100 reference words
            and so may pass 100.
        signature: Package, version and settings, those of the bootstrap included.
        low: Lower end of the 95 % bootstrap interval, None where none was asked for.
        high: Upper end.
    """

    score: float
    signature: str
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | str]:
        """Returns the fields for results.json; the interval only where there is one."""
        fields: dict[str, float | str] = {"score": self.score, "signature": self.signature}
        if self.low is not None and self.high is not None:
            fields |= {"low": self.low, "high": self.high}
        return fields


def corpus_scores(statistics: Mapping[str, Statistics], *, resamples: int, seed: int) -> dict[str, Score]:
    """Scores a corpus by each metric, with 95 % intervals if `resamples` is above 0.

    Every metric sees the same draws of examples, and so does every system that is scored with the same seed.
    """
    values = {name: one.score(one.rows.sum(axis=0)) for name, one in statistics.items()}
    if not resamples or not statistics:
        return {name: Score(values[name], one.signature) for name, one in statistics.items()}
    sums = resampled_sums(np.hstack([one.rows for one in statistics.values()]), resamples, seed)
    scores = {}
    first = 0
    for name, one in statistics.items():
        last = first + one.rows.shape[1]
        low, high = percentile_interval(np.array([one.score(row) for row in sums[:, first:last]]))
        scores[name] = Score(values[name], _with_bootstrap(one.signature, resamples, seed), low, high)
        first = last
    return scores


def ratio(sums: NDArray[np.float64]) -> float:
    """The score of rows that are [part, whole]: the parts for each unit of the wholes; 0 of nothing."""
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def percentage(sums: NDArray[np.float64]) -> float:
    """The same in percent."""
    return 100 * ratio(sums)


def resampled_sums(rows: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums the rows [N, C] of N examples drawn with replacement, for each resample: [resamples, C].

    Differs from sacrebleu's own `n_bootstrap` in memory only: that one holds resamples x examples x statistics
    at once and takes its seed from the environment. The draws are the same for the same seed.
    """
    rng = np.random.default_rng(seed)
    count = len(rows)
    sums = np.empty((resamples, rows.shape[1]))
    for row in sums:
        times_drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        row[:] = times_drawn @ rows
    return sums


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % percentile interval of resampled scores; a fortieth is cut off on either side."""
    ordered = np.sort(values)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _with_bootstrap(signature: str, resamples: int, seed: int) -> str:
    """Names the bootstrap where sacrebleu does: behind the number of references."""
    references, settings = signature.split("|", 1)
    return f"{references}|bs:{resamples}|seed:{seed}|{settings}"
