import numpy as np
import pytest

from seq2seq.metrics import MetricsConfig, score, statistics
from seq2seq.metrics.bootstrap import Statistics, corpus_scores, percentage, ratio, resampled_sums
from seq2seq.metrics.signature import Signature

rng = np.random.default_rng(3)
WORDS = ["red", "green", "blue", "black", "white", "grey"]
HYPS = [" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) for _ in range(40)]
REFS = [[" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) for _ in range(2)] for _ in range(40)]


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter", "rouge1", "rougeLsum"])
def test_intervals_match_rescoring_resampled_texts(name):
    config = MetricsConfig(names=[name], bootstrap=40)
    found = score(HYPS, REFS, config, target_language="en", seed=9)[name]
    draws = np.random.default_rng(9)
    values = []
    for _ in range(40):
        drawn = draws.integers(40, size=40)
        texts, references = [HYPS[i] for i in drawn], [REFS[i] for i in drawn]
        values.append(score(texts, references, config, target_language="en", seed=0, bootstrap=0)[name].score)
    values.sort()
    assert found.low == pytest.approx(values[1])  # one of forty is cut off on either side
    assert found.high == pytest.approx(values[38])


def test_all_metrics_use_the_same_draws():
    names = ["bleu", "rouge1", "rouge2"]
    together = score(HYPS, REFS, MetricsConfig(names=names, bootstrap=50), target_language="en", seed=4)
    for name in names:
        alone = score(HYPS, REFS, MetricsConfig(names=[name], bootstrap=50), target_language="en", seed=4)[name]
        assert (together[name].low, together[name].high) == pytest.approx((alone.low, alone.high))
        assert together[name].signature == alone.signature


def test_resampled_sums():
    rows = np.arange(12.0).reshape(6, 2)
    sums = resampled_sums(rows, 5, seed=2)
    draws = np.random.default_rng(2)
    for row in sums:
        assert row == pytest.approx(rows[draws.integers(6, size=6)].sum(axis=0))


def test_ratios():
    assert ratio(np.array([3.0, 2.0])) == 1.5
    assert percentage(np.array([3.0, 2.0])) == 150.0
    assert percentage(np.array([0.0, 0.0])) == 0.0


def test_the_signature_names_the_bootstrap_after_the_number_of_references():
    one = Statistics(Signature.parse("nrefs:1|type:mine"), np.array([[1.0, 1.0], [0.0, 1.0]]), percentage)
    assert str(corpus_scores({"mine": one}, resamples=0, seed=1)["mine"].signature) == "nrefs:1|type:mine"
    assert str(corpus_scores({"mine": one}, resamples=5, seed=1)["mine"].signature) == "nrefs:1|bs:5|seed:1|type:mine"
    assert corpus_scores({}, resamples=5, seed=1) == {}


def test_statistics_have_one_row_per_example():
    for one in statistics(HYPS, REFS, MetricsConfig(), target_language="en").values():
        assert one.rows.shape[0] == 40
        assert str(one.signature).startswith("nrefs:2|")
