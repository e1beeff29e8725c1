"""Our scores against sacrebleu's command line on written files, and against rouge_score called directly."""

import json
import os
import random
import subprocess
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer

from seq2seq.metrics import ROUGE_METRICS, MetricsConfig, score

TEXT = "The a man Woman rides bikes, horse's over (quickly) green-red 3.5 hills; and then STOPS. Straße für"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def corpus():
    """Noisy copies: words dropped, swapped and replaced; some lines empty; two references."""
    rng = random.Random(5)
    hyps, refs = [], []
    for number in range(60):
        reference = rng.choices(WORDS, k=rng.randint(3, 20))
        other = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in reference]
        hyp = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in reference if rng.random() < 0.9]
        if number % 7 == 0:
            rng.shuffle(hyp)
        hyps.append("" if number == 11 else " ".join(hyp))
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
    assert ours.signature == printed["signature"]
    # sacrebleu sums the resampled statistics in float32 and prints half the width of the interval.
    assert (ours.high - ours.low) / 2 == pytest.approx(printed["confidence_var"], abs=1e-4)


def test_sacrebleu_command_line_in_chinese(tmp_path):
    hyps = ["今天天气很好。", "我们去公园玩吧", "他喜欢 Python 编程"]
    refs = [["今天的天气非常好。"], ["我们一起去公园玩"], ["他很喜欢用 Python 编程"]]
    printed = sacrebleu(tmp_path, hyps, refs, "-m", "bleu", "-tok", "zh")
    ours = score(hyps, refs, MetricsConfig(names=["bleu"], bootstrap=0), target_language="zh", seed=1)["bleu"]
    assert ours.score == pytest.approx(printed["score"], abs=1e-7)
    assert ours.signature == printed["signature"]


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_package(corpus, stem):
    hyps, refs = corpus
    hyps = [hyp.replace(". ", ".\n") for hyp in hyps]
    config = MetricsConfig(names=list(ROUGE_METRICS), rouge_stemmer=stem, bootstrap=0)
    scorer = RougeScorer(list(ROUGE_METRICS), use_stemmer=stem)

    single = score(hyps, [r[:1] for r in refs], config, target_language="en", seed=1)
    for name in ROUGE_METRICS:
        total = sum(scorer.score(r[0], h)[name].fmeasure for h, r in zip(hyps, refs, strict=True))
        assert single[name].score == pytest.approx(100 * total / len(hyps), abs=1e-9)

    several = score(hyps, refs, config, target_language="en", seed=1)
    for name in ROUGE_METRICS:
        total = sum(max(scorer.score(text, h)[name].fmeasure for text in r) for h, r in zip(hyps, refs, strict=True))
        assert several[name].score == pytest.approx(100 * total / len(hyps), abs=1e-9)
