"""Whether the difference between two systems is more than chance: paired tests on the same examples.

Both tests compute corpus scores anew from sums of the examples' sufficient statistics:

* The paired bootstrap (Koehn 2004, "Statistical significance tests for machine translation evaluation", W04-3250)
  draws examples with replacement, the same ones for all systems. It gives the intervals too. Its p-value is that of
  Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and significance testing for MT", W05-0908: how
  often the size of the resampled difference exceeds its own mean by the size of the observed one.
* Approximate randomization (the same paper; Noreen 1989, "Computer-intensive methods for testing hypotheses") lets the
  outputs of the two systems change places at random, example by example: how often is the difference then as large
  as the observed one?

Draws, seeding and p-values are those of sacrebleu's paired tests (`--paired-bs`, `--paired-ar`), so that the figures
are the same. They count only what is larger than the observed difference, which would make the smallest p-value of two
systems that have the same outputs, or the same but for a few. Differs from them there: see `_difference`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2seq.metrics import Statistics, percentile_interval, resampled_sums

Array = NDArray[np.float64]

_BLOCK = 2**22  # draws held at once: 32 MiB
_WORD = 32  # numpy takes booleans from words of 32 bits: blocks of so many rows continue one another
_ROUNDING = 1e-9  # of scores from 0 to 100 whose sums were added up in different orders


@dataclass(frozen=True)
class Sampling:
    """How chance is imitated.

    Attributes:
        resamples: Of the paired bootstrap, at least 1.
        trials: Of approximate randomization, at least 1.
        seed: Of either, at least 0.
    """

    resamples: int
    trials: int
    seed: int


@dataclass(frozen=True)
class Difference:
    """A system's score minus the baseline's.

    Attributes:
        value: Of the scores on all examples.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        p_bootstrap: Of the paired bootstrap, above 0 and at most 1.
        p_randomization: Of approximate randomization, above 0 and at most 1.
    """

    value: float
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float


@dataclass(frozen=True)
class TestedScore:
    """A system's score by one metric.

    Attributes:
        score: On all examples.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        difference: From the baseline; None for the baseline itself.
    """

    __test__ = False  # not a test case, whatever its name tells pytest

    score: float
    low: float
    high: float
    difference: Difference | None


def paired_tests(systems: Sequence[Mapping[str, Statistics]], sampling: Sampling) -> dict[str, list[TestedScore]]:
    """Scores systems, and tests each against the first, the baseline.

    All metrics and systems see the same draws.

    Args:
        systems: Two or more; of each the statistics by metric, of the same examples in the same order.
        sampling: Of intervals and p-values.

    Returns:
        By metric the systems' scores, in their order.
    """
    metrics = list(systems[0])
    rows = [np.hstack([system[metric].rows for metric in metrics]) for system in systems]
    drawn = np.split(resampled_sums(np.hstack(rows), sampling.resamples, sampling.seed), len(systems), axis=1)
    losses = np.hstack([rows[0] - theirs for theirs in rows[1:]])
    swapped = np.split(_swapped_sums(losses, sampling.trials, sampling.seed), len(systems) - 1, axis=1)
    tested: dict[str, list[TestedScore]] = {}
    start = 0
    for metric in metrics:
        statistics = systems[0][metric]
        place = slice(start, start + statistics.rows.shape[1])
        start = place.stop
        totals = [part[:, place].sum(axis=0) for part in rows]
        values = [float(statistics.score(total)) for total in totals]
        resampled = [_scores(statistics, sums[:, place]) for sums in drawn]
        tested[metric] = [TestedScore(values[0], *percentile_interval(resampled[0]), difference=None)]
        for number in range(1, len(systems)):
            moved = swapped[number - 1][:, place]
            first, second = _scores(statistics, totals[number] + moved), _scores(statistics, totals[0] - moved)
            difference = _difference(
                values[number] - values[0],
                resampled[number] - resampled[0],
                second - first,
                examples=int(np.any(rows[number][:, place] != rows[0][:, place], axis=1).sum()),
            )
            tested[metric].append(
                TestedScore(values[number], *percentile_interval(resampled[number]), difference=difference)
            )
    return tested


def _difference(value: float, resampled: Array, randomized: Array, *, examples: int) -> Difference:
    """Judges an observed difference by those of resamples [resamples] and of random swaps [trials].

    `examples` is the number of those on which the two systems differ at all. Trials that swap all of them or none, a
    share of 2^(1 - examples), have the observed difference again. They are no evidence against chance: their share is
    added to the p-value of randomization. It matters for about ten examples and fewer; for none, both p-values are 1.
    """
    sizes = np.abs(resampled)
    return Difference(
        value,
        *percentile_interval(resampled),
        p_bootstrap=_p_value(sizes - sizes.mean(), abs(value)) if examples else 1.0,
        p_randomization=min(_p_value(np.abs(randomized), abs(value)) + 2.0 ** (1 - examples), 1.0),
    )


def _p_value(chance: Array, observed: float) -> float:
    """How often chance gives more than what was observed, the observation itself counted as one such case."""
    return (int(np.count_nonzero(chance > observed + _ROUNDING)) + 1) / (len(chance) + 1)


def _scores(statistics: Statistics, sums: Array) -> Array:
    """The score of each sum of rows [samples, C]."""
    return np.array([statistics.score(row) for row in sums])


def _swapped_sums(rows: Array, trials: int, seed: int) -> Array:
    """Sums the rows [N, C] of the examples that change places, each with probability 1/2: [trials, C]."""
    rng = np.random.default_rng(seed)
    count = len(rows)
    step = max(_BLOCK // count // _WORD, 1) * _WORD
    sums = np.zeros((trials, rows.shape[1]))
    for start in range(0, trials, step):
        block = sums[start : start + step]
        swaps = rng.integers(2, size=(len(block), count), dtype=bool)
        width = _BLOCK // step
        for first in range(0, count, width):
            block += swaps[:, first : first + width].astype(np.float64) @ rows[first : first + width]
    return sums
