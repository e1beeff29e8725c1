"""Paired significance tests of the difference between two systems on the same examples.

Both tests recompute corpus scores from sums of the examples' sufficient statistics:

* The paired bootstrap (Koehn 2004, "Statistical significance tests for machine translation evaluation", W04-3250)
  draws examples with replacement, the same ones for all systems. It also gives the intervals. Its p-value is that of
  Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and significance testing for MT", W05-0908: how
  often the absolute resampled difference exceeds its own mean by more than the absolute observed difference.
* Approximate randomization (the same paper; Noreen 1989, "Computer-intensive methods for testing hypotheses") swaps
  the outputs of the two systems at random, example by example. Its p-value is how often the absolute difference is
  then larger than the observed one.

Draws and seeding match sacrebleu's paired tests (`--paired-bs`, `--paired-ar`), and so do p-values, with one exception:
sacrebleu counts strictly larger differences only, so two systems with the same outputs, or almost, get the smallest
possible p-value. `_difference` corrects that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2seq.metrics.bootstrap import Statistics, metric_columns, percentile_interval, resampled_sums

Array = NDArray[np.float64]

_BLOCK = 2**22  # random draws per block; as float64 they take 32 MiB
_WORD = 32  # numpy draws booleans from 32-bit words: blocks of a multiple of 32 rows draw the same as one block
_ROUNDING = 1e-9  # tolerance for scores from 0 to 100 whose sums were added in different orders


@dataclass(frozen=True)
class ResamplingConfig:
    """Settings of the paired tests.

    Attributes:
        resamples: Number of bootstrap resamples, at least 1.
        trials: Number of trials of approximate randomization, at least 1.
        seed: Seed of both tests, at least 0.
    """

    resamples: int
    trials: int
    seed: int


@dataclass(frozen=True)
class Difference:
    """The difference between a system's score and the baseline's.

    Attributes:
        value: System minus baseline, on all examples.
        low: Lower end of the difference's 95 % bootstrap interval.
        high: Upper end of the interval.
        p_bootstrap: p-value of the paired bootstrap, above 0 and at most 1.
        p_randomization: p-value of approximate randomization, above 0 and at most 1.
    """

    value: float
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float


@dataclass(frozen=True)
class TestedScore:
    """A system's score by one metric, tested against the baseline.

    Attributes:
        score: Score on all examples.
        low: Lower end of the score's 95 % bootstrap interval.
        high: Upper end of the interval.
        difference: Difference from the baseline; None for the baseline itself.
    """

    __test__ = False  # the name makes pytest take it for a test class

    score: float
    low: float
    high: float
    difference: Difference | None


def paired_tests(
    systems: Sequence[Mapping[str, Statistics]], resampling: ResamplingConfig
) -> dict[str, list[TestedScore]]:
    """Scores systems and tests each against the first one, the baseline.

    All metrics and systems share the same random draws.

    Args:
        systems: Statistics by metric of each of two or more systems, for the same examples in the same order.
        resampling: Settings of the tests.

    Returns:
        Scores by metric, in the order of `systems`.
    """
    rows = [np.hstack([system[metric].rows for metric in systems[0]]) for system in systems]
    bootstrap_sums = np.split(
        resampled_sums(np.hstack(rows), resampling.resamples, resampling.seed), len(systems), axis=1
    )
    differences = np.hstack([rows[0] - other for other in rows[1:]])
    swapped = np.split(_swapped_sums(differences, resampling.trials, resampling.seed), len(systems) - 1, axis=1)
    tested: dict[str, list[TestedScore]] = {}
    for (metric, statistics), columns in zip(systems[0].items(), metric_columns(systems[0]), strict=True):
        totals = [system_rows[:, columns].sum(axis=0) for system_rows in rows]
        values = [statistics.score(total) for total in totals]
        resampled = [statistics.scores(sums[:, columns]) for sums in bootstrap_sums]
        tested[metric] = [TestedScore(values[0], *percentile_interval(resampled[0]), difference=None)]
        for i in range(1, len(systems)):
            change = swapped[i - 1][:, columns]  # of the system's sums; the baseline's change by its negative
            system, baseline = statistics.scores(totals[i] + change), statistics.scores(totals[0] - change)
            difference = _difference(
                values[i] - values[0],
                resampled[i] - resampled[0],
                system - baseline,
                num_different=int(np.any(rows[i][:, columns] != rows[0][:, columns], axis=1).sum()),
            )
            tested[metric].append(TestedScore(values[i], *percentile_interval(resampled[i]), difference=difference))
    return tested


def _difference(value: float, resampled: Array, randomized: Array, *, num_different: int) -> Difference:
    """Computes p-values of an observed difference from those of resamples [resamples] and random swaps [trials].

    `num_different` is the number of examples on which the two systems differ. Trials that swap all of these or none, a
    fraction of 2^(1 - num_different), reproduce the observed difference. They are no evidence against chance, so their
    fraction is added to the p-value of randomization. It matters for about ten examples or fewer; for none, both
    p-values are 1.
    """
    sizes = np.abs(resampled)
    return Difference(
        value,
        *percentile_interval(resampled),
        p_bootstrap=_p_value(sizes - sizes.mean(), abs(value)) if num_different else 1.0,
        p_randomization=min(_p_value(np.abs(randomized), abs(value)) + 2.0 ** (1 - num_different), 1.0),
    )


def _p_value(null: Array, observed: float) -> float:
    """Returns the fraction of samples of the null distribution above the observed value, which counts as one."""
    return (int(np.count_nonzero(null > observed + _ROUNDING)) + 1) / (len(null) + 1)


def _swapped_sums(differences: Array, trials: int, seed: int) -> Array:
    """Sums the differences [N, C] of the swapped examples, each swapped with probability 1/2: [trials, C]."""
    rng = np.random.default_rng(seed)
    count = len(differences)
    step = max(_BLOCK // count // _WORD, 1) * _WORD
    sums = np.zeros((trials, differences.shape[1]))
    for start in range(0, trials, step):
        block = sums[start : start + step]
        swaps = rng.integers(2, size=(len(block), count), dtype=bool)
        width = _BLOCK // step
        for first in range(0, count, width):
            block += swaps[:, first : first + width].astype(np.float64) @ differences[first : first + width]
    return sums
