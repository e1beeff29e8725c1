"""Final scores of a run on every test set, and its outputs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2seq.data.store import TokenStore
from seq2seq.inference.evaluator import Evaluator
from seq2seq.metrics import Score
from seq2seq.models.base import Seq2Seq
from seq2seq.runs.folder import write_text

LOSS_SIGNATURES = {
    "loss": "nats a target token|smoothing:no|eos:counted",
    "ppl": "exp of loss",
    "accuracy": "% of target tokens|teacher-forced|eos:counted",
}


def score_tests(
    evaluator: Evaluator, models: Sequence[Seq2Seq], stores: Mapping[str, TokenStore]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Scores models on test sets with the configured search.

    Returns:
        Two mappings by test set: each metric as ``{score, signature}`` with an interval, and the decoded outputs. A
        single model also gets its loss, perplexity and token accuracy, which are not defined for an ensemble.
    """
    scores: dict[str, dict[str, Any]] = {}
    outputs: dict[str, list[str]] = {}
    for name, store in stores.items():
        outputs[name] = evaluator.generate(models, store)
        scores[name] = _to_dicts(evaluator.score_test(outputs[name], store))
        if len(models) == 1:
            scores[name] |= {
                name: {"score": value, "signature": LOSS_SIGNATURES[name]}
                for name, value in evaluator.loss(models[0], store).items()
            }
    return scores, outputs


def score_baselines(evaluator: Evaluator, stores: Mapping[str, TokenStore]) -> dict[str, dict[str, Any]]:
    """Scores the baselines on test sets: by test set and baseline, each metric as ``{score, signature}``.

    Test sets without baselines are left out.
    """
    found = {name: evaluator.score_baselines(store) for name, store in stores.items()}
    return {
        name: {baseline: _to_dicts(scores) for baseline, scores in baselines.items()}
        for name, baselines in found.items()
        if baselines
    }


def _to_dicts(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {metric: score.to_dict() for metric, score in scores.items()}


def write_generations(folder: Path, outputs: Mapping[str, Sequence[str]]) -> None:
    """Writes ``<test set>.txt`` with one output per line; a line break in an output becomes a space.

    If there are line breaks, ``<test set>.jsonl`` keeps them, as `generate format=jsonl` does.
    """
    for name, texts in outputs.items():
        lines = [one_line(text) for text in texts]
        write_text(folder / f"{name}.txt", "".join(f"{line}\n" for line in lines))
        records = folder / f"{name}.jsonl"
        if lines == list(texts):
            records.unlink(missing_ok=True)
        else:
            write_text(records, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))


def one_line(text: str) -> str:
    """Replaces line breaks by spaces, so that outputs stay aligned with inputs."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def scores_by_tag(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Flattens test scores to values by tag: ``test/<test set>/<metric>``."""
    return {
        f"test/{name}/{metric}": score["score"] for name, metrics in scores.items() for metric, score in metrics.items()
    }


def finite_objective(value: float | None, mode: str) -> float:
    """Returns the objective for sweepers: the value, or the worst possible one if it is missing or not finite."""
    if value is not None and math.isfinite(value):
        return value
    return 1e9 if mode == "min" else -1e9
