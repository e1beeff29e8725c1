"""Sufficient statistics of a metric, its corpus score, and the bootstrap over examples.

A corpus score is a function of the sum over examples of a few numbers: counts of matching n-grams for BLEU, [F1, 1]
for a mean of F1. The bootstrap resamples examples and sums their rows (Koehn 2004, "Statistical significance tests
for machine translation evaluation", W04-3250).
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2seq.metrics.signature import Signature


@dataclass(frozen=True)
class Statistics:
    """Sufficient statistics of a metric per example; the corpus score is a function of their sum.

    Attributes:
        signature: Package, version and settings, starting with the number of references; without the bootstrap.
        rows: float64 [N, C], C numbers per example.
        score: Maps a sum of rows [C] to the corpus score, 0 to 100. Lower is better for LOWER_IS_BETTER.
    """

    signature: Signature
    rows: NDArray[np.float64]
    score: Callable[[NDArray[np.float64]], float]

    def scores(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Computes the score of each sum of rows [samples, C]."""
        return np.array([self.score(row) for row in sums])


@dataclass(frozen=True)
class Score:
    """A corpus score and the signature that makes it reproducible.

    Attributes:
        score: 0 to 100; higher is better except for TER, which counts edits per 100 reference words and may
            exceed 100.
        signature: Package, version and settings, including those of the bootstrap.
        low: Lower end of the 95 % bootstrap interval; None without a bootstrap.
        high: Upper end of the interval.
    """

    score: float
    signature: Signature
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | str]:
        """Returns the fields for results.json; omits the interval if there is none."""
        fields: dict[str, float | str | None] = {
            "score": self.score,
            "signature": str(self.signature),
            "low": self.low,
            "high": self.high,
        }
        return {name: value for name, value in fields.items() if value is not None}


def corpus_scores(statistics: Mapping[str, Statistics], *, resamples: int, seed: int) -> dict[str, Score]:
    """Computes corpus scores by metric, with 95 % intervals if `resamples` is above 0.

    All metrics, and all systems scored with the same seed, use the same resampled examples.
    """
    scores = {name: Score(stats.score(stats.rows.sum(axis=0)), stats.signature) for name, stats in statistics.items()}
    if not resamples or not statistics:
        return scores
    sums = resampled_sums(np.hstack([stats.rows for stats in statistics.values()]), resamples, seed)
    for (name, stats), columns in zip(statistics.items(), metric_columns(statistics), strict=True):
        low, high = percentile_interval(stats.scores(sums[:, columns]))
        scores[name] = Score(scores[name].score, stats.signature.with_resampling(bs=resamples, seed=seed), low, high)
    return scores


def metric_columns(statistics: Mapping[str, Statistics]) -> list[slice]:
    """Returns the columns of each metric in an array with the rows of all of them side by side."""
    ends = np.cumsum([stats.rows.shape[1] for stats in statistics.values()]).tolist()
    return [slice(start, end) for start, end in itertools.pairwise([0, *ends])]


def ratio(sums: NDArray[np.float64]) -> float:
    """Score function of rows [part, whole]: sum of parts / sum of wholes; 0 if the latter is 0."""
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def percentage(sums: NDArray[np.float64]) -> float:
    """Score function of rows [part, whole]: `ratio` in percent."""
    return 100 * ratio(sums)


def resampled_sums(rows: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Returns the sums of N rows drawn with replacement from `rows` [N, C], per resample: [resamples, C].

    For the same seed, draws the same examples as sacrebleu's `n_bootstrap`, which holds resamples x examples x
    statistics in memory and takes its seed from the environment.
    """
    rng = np.random.default_rng(seed)
    count = len(rows)
    sums = np.empty((resamples, rows.shape[1]))
    for row in sums:
        weights = np.bincount(rng.integers(count, size=count), minlength=count)  # times each example was drawn
        row[:] = weights @ rows
    return sums


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % percentile interval of resampled scores: drops 2.5 % of them on either side."""
    ordered = np.sort(values)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])
