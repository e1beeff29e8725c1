"""Our paired tests against sacrebleu's, and for ROUGE against a plain loop over texts."""

import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from seq2seq.cli.main import run_command
from seq2seq.metrics import MetricsConfig, statistics
from seq2seq.metrics.significance import ResamplingConfig, paired_tests

TEXT = "The a man Woman rides bikes, horse's over (quickly) green-red 3.5 hills; and then STOPS. Straße für"
WORDS = TEXT.split()
SEED = 20


@pytest.fixture(scope="module")
def corpus():
    """Two systems, the second one less noisy, and two references."""
    rng = random.Random(9)

    def noisy(words, share):
        return " ".join(word if rng.random() > share else rng.choice(WORDS) for word in words)

    references = [rng.choices(WORDS, k=rng.randint(3, 20)) for _ in range(75)]
    refs = [[" ".join(words), noisy(words, 0.2)] for words in references]
    return [noisy(words, 0.30) for words in references], [noisy(words, 0.26) for words in references], refs


def run_tests(corpus, config, resampling, references):
    *systems, refs = corpus
    refs = [several[:references] for several in refs]
    return paired_tests([statistics(hyps, refs, config, target_language="en") for hyps in systems], resampling)


@pytest.mark.parametrize("references", [1, 2])
def test_sacrebleu_paired_tests(corpus, monkeypatch, references):
    monkeypatch.setenv("SACREBLEU_SEED", str(SEED))
    first, second, refs = corpus
    streams = [[several[k] for several in refs] for k in range(references)]
    metrics = {
        "bleu": BLEU(), "bleu_lc": BLEU(lowercase=True), "chrf": CHRF(word_order=2), "ter": TER()
    }  # fmt: skip
    config = MetricsConfig(names=list(metrics))
    ours = run_tests(corpus, config, ResamplingConfig(resamples=300, trials=500, seed=SEED), references)
    for name, metric in metrics.items():
        found = {}
        for kind, samples in (("bs", 300), ("ar", 500)):
            test = PairedTest([("a", first), ("b", second)], {"m": metric}, streams, test_type=kind, n_samples=samples)
            _, scores = test()
            (found[kind],) = [results for key, results in scores.items() if key != "System"]
        baseline, other = ours[name]
        assert other.difference is not None
        assert baseline.score == pytest.approx(found["bs"][0].score, abs=1e-9)
        assert other.score == pytest.approx(found["bs"][1].score, abs=1e-9)
        # It sums the resampled statistics in float32, and gives half the width of the interval.
        assert (other.high - other.low) / 2 == pytest.approx(found["bs"][1].ci, abs=1e-4)
        assert other.difference.p_bootstrap == pytest.approx(found["bs"][1].p_value, abs=1e-9), name
        assert other.difference.p_randomization == pytest.approx(found["ar"][1].p_value, abs=1e-9), name


@pytest.mark.slow
def test_sacrebleu_command_line(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)  # both sides then take the same seed of their own
    monkeypatch.chdir(tmp_path)
    *systems, refs = corpus
    for name, lines in (("a", systems[0]), ("b", systems[1]), ("ref", [several[0] for several in refs])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = ["metrics.names=[bleu,chrf]", "resamples=400", "trials=600", "format=json"]
    assert run_command("compare", ["hyp=a", "other=b", "ref=ref", *options]) == 0
    ours = json.loads(capsys.readouterr().out)["ref"]["metrics"]
    for key, arguments in (
        ("p_bootstrap", ["--paired-bs", "--paired-bs-n", "400"]),
        ("p_randomization", ["--paired-ar", "--paired-ar-n", "600"]),
    ):
        command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "a", "b", "-m", "bleu", "chrf"]
        # As text: of chrF its JSON writer cannot write the float32 numbers that the bootstrap leaves.
        command += ["--chrf-word-order", "2", "-f", "text", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        printed = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", done.stdout)]
        assert len(printed) == 2, done.stdout
        assert [ours[name]["systems"]["b"]["difference"][key] for name in ("bleu", "chrf")] == pytest.approx(
            printed, abs=5.1e-5
        )


def test_rouge_by_a_plain_loop(corpus):
    names = ["rouge1", "rouge2", "rougeL"]
    first, second, refs = corpus
    scorer = RougeScorer(names, use_stemmer=True)
    resampling = ResamplingConfig(resamples=200, trials=300, seed=4)
    ours = run_tests(corpus, MetricsConfig(names=names), resampling, 1)
    for name in names:
        values = [
            [100 * scorer.score(several[0], hyp)[name].fmeasure for hyp, several in zip(hyps, refs, strict=True)]
            for hyps in (first, second)
        ]
        observed = abs(np.mean(values[0]) - np.mean(values[1]))
        draws = np.random.default_rng(4).choice(len(refs), size=(200, len(refs)), replace=True)
        resampled = [np.mean([values[1][i] - values[0][i] for i in drawn]) for drawn in draws]
        mean_size = np.mean(np.abs(resampled))
        more = sum(abs(difference) - mean_size > observed for difference in resampled)
        swaps = np.random.default_rng(4).integers(2, size=(300, len(refs)), dtype=bool)
        more_by_swaps = 0
        for swap in swaps:
            left = np.mean([values[1][i] if swapped else values[0][i] for i, swapped in enumerate(swap)])
            right = np.mean([values[0][i] if swapped else values[1][i] for i, swapped in enumerate(swap)])
            more_by_swaps += abs(left - right) > observed + 1e-9
        difference = ours[name][1].difference
        assert difference is not None
        assert difference.value == pytest.approx(np.mean(values[1]) - np.mean(values[0]))
        assert difference.p_bootstrap == pytest.approx((more + 1) / 201)
        assert difference.p_randomization == pytest.approx((more_by_swaps + 1) / 301)
        ordered = sorted(resampled)
        assert (difference.low, difference.high) == pytest.approx((ordered[5], ordered[194]))
