"""Our scores against sacrebleu's command line on written files, and against rouge_score called directly."""

import csv
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from seq2seq.metrics import ROUGE_METRICS, MetricsConfig, score, statistics
from seq2seq.metrics.baselines import rouge_1_2_f1
from seq2seq.metrics.rouge import default_tokenizer

TEXT = "The a man Woman rides bikes, horse's over (quickly) green-red 3.5 hills; and then STOPS. Straße für"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def corpus():
    """Noisy copies: words dropped, swapped and replaced; some lines empty; two references."""
    rng = random.Random(5)
    hyps, refs = [], []
    for index in range(60):
        reference = rng.choices(WORDS, k=rng.randint(3, 20))
        other = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in reference]
        hyp = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in reference if rng.random() < 0.9]
        if index % 7 == 0:
            rng.shuffle(hyp)
        hyps.append("" if index == 11 else " ".join(hyp))
        refs.append([" ".join(reference), " ".join(other)])
    return hyps, refs


def sacrebleu(folder, hyps, refs, *arguments, seed=None):
    def write(name, lines):
        path = folder / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    references = [write(f"ref{k}", [r[k] for r in refs]) for k in range(len(refs[0]))]
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        *references,
        "-i",
        write("hyp", hyps),
        "-w",
        "8",
        *arguments,
    ]
    environment = os.environ | ({"SACREBLEU_SEED": str(seed)} if seed is not None else {})
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bleu", ["-m", "bleu"]),
        ("bleu_lc", ["-m", "bleu", "-lc", "-tok", "13a"]),
        ("chrf", ["-m", "chrf", "--chrf-word-order", "2"]),
        ("ter", ["-m", "ter"]),
    ],
)
@pytest.mark.parametrize("references", [1, 2])
def test_sacrebleu_command_line(tmp_path, corpus, name, arguments, references):
    hyps, refs = corpus
    refs = [r[:references] for r in refs]
    resamples = ["--confidence", "--confidence-n", "80"]
    printed = sacrebleu(tmp_path, hyps, refs, *arguments, *resamples, seed=31)
    config = MetricsConfig(names=[name], bootstrap=80)
    ours = score(hyps, refs, config, target_language="en", seed=31)[name]
    assert ours.score == pytest.approx(printed["score"], abs=1e-7)
    assert str(ours.signature) == printed["signature"]
    # sacrebleu sums the resampled statistics in float32 and prints half the width of the interval.
    assert (ours.high - ours.low) / 2 == pytest.approx(printed["confidence_var"], abs=1e-4)


def test_sacrebleu_command_line_in_chinese(tmp_path):
    hyps = ["今天天气很好。", "我们去公园玩吧", "他喜欢 Python 编程"]
    refs = [["今天的天气非常好。"], ["我们一起去公园玩"], ["他很喜欢用 Python 编程"]]
    printed = sacrebleu(tmp_path, hyps, refs, "-m", "bleu", "-tok", "zh")
    ours = score(hyps, refs, MetricsConfig(names=["bleu"], bootstrap=0), target_language="zh", seed=1)["bleu"]
    assert ours.score == pytest.approx(printed["score"], abs=1e-7)
    assert str(ours.signature) == printed["signature"]


@pytest.fixture(scope="module")
def thousand():
    """Random texts of one to three lines each, some empty, with one to four references."""
    rng = random.Random(11)

    def text():
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(0, 7))) for _ in range(rng.randint(1, 3))]
        return "\n".join(lines)

    return [text() for _ in range(1000)], [[text() for _ in range(rng.randint(1, 4))] for _ in range(1000)]


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_package(thousand, stem):
    hyps, refs = thousand
    ours = statistics(hyps, refs, MetricsConfig(names=list(ROUGE_METRICS), rouge_stemmer=stem), target_language="en")
    scorer = RougeScorer(list(ROUGE_METRICS), use_stemmer=stem)
    for index, (hyp, references) in enumerate(zip(hyps, refs, strict=True)):
        best = scorer.score_multi(references, hyp)
        each = [scorer.score(reference, hyp) for reference in references]
        for name in ROUGE_METRICS:
            mean = sum(scores[name].fmeasure for scores in each) / len(each)
            assert ours[name].rows[index] == pytest.approx([100 * best[name].fmeasure, 1], abs=1e-9)
            assert ours[f"{name}_mean"].rows[index] == pytest.approx([100 * mean, 1], abs=1e-9)
    for one in ours.values():
        assert one.score(one.rows.sum(axis=0)) == pytest.approx(one.rows[:, 0].mean(), abs=1e-9)


def test_rouge_command_line(tmp_path, corpus):
    """The command of docs/metrics.md; the package writes six decimals."""
    hyps, refs = corpus
    for name, lines in {"hyp": hyps, "ref": [references[0] for references in refs]}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "rouge_score.rouge", "--target_filepattern=ref", "--prediction_filepattern=hyp"]
    command += ["--output_filename=out.csv", "--rouge_types=rouge1,rouge2,rougeL,rougeLsum"]
    command += ["--use_stemmer", "--noaggregate"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    with (tmp_path / "out.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    config = MetricsConfig(names=list(ROUGE_METRICS), bootstrap=0)
    ours = score(hyps, [references[:1] for references in refs], config, target_language="en", seed=1)
    for name in ROUGE_METRICS:
        mean = sum(float(row[f"{name}-F"]) for row in rows) / len(rows)
        assert ours[name].score == pytest.approx(100 * mean, abs=1e-4)


def test_rouge_aggregator(thousand):
    """The package's own bootstrap: the same mean, and an interval that only the draws make differ."""
    hyps, refs = thousand[0], [references[:1] for references in thousand[1]]
    ours = score(hyps, refs, MetricsConfig(names=["rouge1"]), target_language="en", seed=1)["rouge1"]
    np.random.seed(1)
    aggregator = BootstrapAggregator(confidence_interval=0.95, n_samples=1000)
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    for hyp, references in zip(hyps, refs, strict=True):
        aggregator.add_scores(scorer.score(references[0], hyp))
    theirs = aggregator.aggregate()["rouge1"]
    assert ours.low == pytest.approx(100 * theirs.low.fmeasure, abs=0.2)
    assert ours.high == pytest.approx(100 * theirs.high.fmeasure, abs=0.2)
    assert ours.high - ours.low > 1.0


def test_oracle_maximises_what_the_package_counts(thousand):
    tokenize = default_tokenizer(stem=True)
    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=True)
    for hyp, references in zip(thousand[0][:100], thousand[1][:100], strict=True):
        scores = scorer.score(references[0], hyp)
        ours = rouge_1_2_f1(tokenize(hyp), tokenize(references[0]))
        assert ours == pytest.approx(scores["rouge1"].fmeasure + scores["rouge2"].fmeasure, abs=1e-12)
