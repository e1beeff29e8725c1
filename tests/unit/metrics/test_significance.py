import itertools
import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest

from seq2seq.metrics import Signature, Statistics
from seq2seq.metrics.significance import ResamplingConfig, paired_tests


def mean_of(values):
    """Returns the statistics of a metric that is a mean over examples."""
    rows = np.column_stack([values, np.ones(len(values))]).astype(np.float64)
    return {"mean": Statistics(Signature.parse("nrefs:1|test"), rows, lambda sums: sums[0] / sums[1])}


def differences(systems, *, resamples=200, trials=500, seed=3):
    tested = paired_tests([mean_of(values) for values in systems], ResamplingConfig(resamples, trials, seed))["mean"]
    return [one.difference for one in tested]


def test_systems_with_the_same_outputs_differ_by_chance_alone():
    values = np.random.default_rng(0).uniform(0, 100, 40)
    baseline, same = differences([values, values])
    assert baseline is None
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert same.p_bootstrap == same.p_randomization == 1


def test_a_plain_difference_has_the_smallest_p_values():
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 50, 200)
    _, better, worse = differences([values, values + rng.uniform(5, 15, 200), values - 10])
    assert better.p_bootstrap == worse.p_bootstrap == 1 / 201
    assert better.p_randomization == worse.p_randomization == 1 / 501
    assert 9 < better.low < better.value < better.high < 11
    assert worse.value == pytest.approx(-10)
    assert worse.low == pytest.approx(-10)  # every resample has the same difference


def test_randomization_of_few_differences_is_the_exact_test():
    values = np.full(50, 30.0)
    gains = np.zeros(50)
    gains[[4, 17, 30]] = 8, 5, -2  # of the 2^3 equally likely outcomes, four are at least as far from zero as 11
    exact = np.mean([abs(np.dot(signs, (8, 5, -2))) >= 11 for signs in itertools.product((1, -1), repeat=3)])
    assert exact == 0.5
    _, tested = differences([values, values + gains], trials=4000)
    assert tested.p_randomization == pytest.approx(exact, abs=0.03)


def test_the_interval_of_a_mean_difference_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(2)
    gains = rng.normal(2, 10, 500)
    values = rng.uniform(0, 100, 500)  # varies far more than the gains: the pairing takes it out
    _, tested = differences([values, values + gains], resamples=2000)
    half = 1.96 * gains.std() / np.sqrt(500)
    assert (tested.high - tested.low) / 2 == pytest.approx(half, rel=0.08)
    assert (tested.high + tested.low) / 2 == pytest.approx(gains.mean(), abs=0.1)


def test_which_system_is_the_baseline_changes_only_the_sign():
    rng = np.random.default_rng(4)
    first, second = rng.uniform(0, 100, (2, 60))
    _, one = differences([first, second])
    _, other = differences([second, first])
    assert one.value == pytest.approx(-other.value)
    assert one.low == pytest.approx(-other.high)
    assert (one.p_bootstrap, one.p_randomization) == (other.p_bootstrap, other.p_randomization)


def test_other_systems_and_metrics_do_not_change_a_result():
    rng = np.random.default_rng(5)
    systems = rng.uniform(0, 100, (3, 80))
    _, first, second = differences(systems)
    assert first != second
    for together, other in ((first, systems[1]), (second, systems[2])):
        alone = differences([systems[0], other])[1]
        assert astuple(alone) == pytest.approx(astuple(together))


def test_p_values_under_the_null_hypothesis():
    """Randomly swapped outputs differ by chance only: the fraction of p-values below each level is that level."""
    rng = np.random.default_rng(6)
    found = []
    for seed in range(300):
        pair = rng.gamma(2, 20, (2, 50))
        swaps = rng.integers(2, size=50, dtype=bool)
        systems = [np.where(swaps, pair[0], pair[1]), np.where(swaps, pair[1], pair[0])]
        found.append(differences(systems, resamples=199, trials=199, seed=seed)[1])
    randomization = np.array([one.p_randomization for one in found])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        error = np.sqrt(level * (1 - level) / len(found))
        assert np.mean(randomization <= level) == pytest.approx(level, abs=3 * error)
    # The paired bootstrap's p-value, as published and as sacrebleu has it, is about half as large: of a normal
    # difference d, |d*| - E|d*| > |d| is one tail only. docs/compare.md says so.
    bootstrap = np.array([one.p_bootstrap for one in found])
    assert np.mean(bootstrap <= 0.05) == pytest.approx(0.10, abs=0.045)
    assert bootstrap.max() < 0.6


@pytest.mark.parametrize("examples", [20_001, 140_001], ids=["blocks of trials", "blocks of examples too"])
def test_drawing_in_blocks_equals_drawing_at_once(examples):
    """With more than 2^22 draws."""
    trials, seed = 8_000_000 // examples, 3
    first, second = systems = np.random.default_rng(7).uniform(0, 100, (2, examples))
    swaps = np.random.default_rng(seed).integers(2, size=(trials, examples), dtype=bool)
    observed = np.abs((second - first).mean())
    chance = np.abs(np.array([np.where(swap, first - second, second - first).mean() for swap in swaps]))
    expected = (np.count_nonzero(chance > observed) + 1) / (trials + 1)
    assert 0.05 < expected < 0.95
    assert differences(systems, resamples=2, trials=trials, seed=seed)[1].p_randomization == expected


def test_memory_is_bounded():
    values = np.random.default_rng(8).uniform(0, 100, (2, 20_000))
    tracemalloc.start()
    differences(values, resamples=50, trials=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # 2000 x 20,000 numbers are 320 MB
