"""What final scores hold: by hand for made-up scores, and for a run from all that it left elsewhere."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from seq2seq.metrics import Score
from seq2seq.metrics.signature import Signature
from seq2seq.pipeline import results
from seq2seq.pipeline.results import finite_objective, one_line, score_baselines, score_tests, write_generations

STORES: Any = {"news": "news", "mail": "mail"}


class Evaluator:
    """Has made-up answers for test sets, which are their own names."""

    def generate(self, models: Sequence[Any], store: str) -> list[str]:
        return [f"{store} by {len(models)}"]

    def score_test(self, outputs: Sequence[str], store: str) -> dict[str, Score]:
        assert outputs[0].startswith(store)
        return {"bleu": Score(12.5, Signature.parse("sig"), 10.0, 15.0)}

    def loss(self, model: Any, store: str) -> dict[str, float]:
        return {"loss": 2.0, "ppl": 7.5, "accuracy": 40.0}

    def score_baselines(self, store: str) -> Mapping[str, Mapping[str, Score]]:
        return {} if store == "mail" else {"lead": {"rouge1": Score(30.0, Signature.parse("sig"))}}


evaluator: Any = Evaluator()
model: Any = object()


def test_a_model_is_scored_by_metrics_and_by_its_loss() -> None:
    scores, outputs = score_tests(evaluator, [model], STORES)
    assert outputs == {"news": ["news by 1"], "mail": ["mail by 1"]}
    expected = {
        "bleu": {"score": 12.5, "signature": "sig", "low": 10.0, "high": 15.0},
        "loss": {"score": 2.0, "signature": "nats a target token|smoothing:no|eos:counted"},
        "ppl": {"score": 7.5, "signature": "exp of loss"},
        "accuracy": {"score": 40.0, "signature": "% of target tokens|teacher-forced|eos:counted"},
    }
    assert scores == {"news": expected, "mail": expected}
    assert results.scores_by_tag({"news": expected}) == {
        "test/news/bleu": 12.5, "test/news/loss": 2.0, "test/news/ppl": 7.5, "test/news/accuracy": 40.0,
    }  # fmt: skip


def test_an_ensemble_has_no_loss() -> None:
    scores, outputs = score_tests(evaluator, [model, model], STORES)
    assert outputs["mail"] == ["mail by 2"]
    assert scores["mail"].keys() == {"bleu"}


def test_baselines_are_there_where_they_were_asked_for() -> None:
    assert score_baselines(evaluator, STORES) == {"news": {"lead": {"rouge1": {"score": 30.0, "signature": "sig"}}}}


def test_outputs_stay_aligned_and_whole(tmp_path: Path) -> None:
    """A line an example in any case; with its line breaks in the other file, which goes when there are none."""
    text, records = tmp_path / "news.txt", tmp_path / "news.jsonl"
    write_generations(tmp_path, {"news": ["a\r\nb\n", "ü", "", "x\ry"]})
    assert text.read_text(encoding="utf-8") == "a b \nü\n\nx y\n"
    found = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    assert '"ü"' in records.read_text(encoding="utf-8"), "readable by people"
    assert found == [{"text": "a\r\nb\n"}, {"text": "ü"}, {"text": ""}, {"text": "x\ry"}]
    write_generations(tmp_path, {"news": ["a", "b"]})
    assert text.read_text(encoding="utf-8") == "a\nb\n"
    assert not records.exists()


def test_a_text_of_several_lines_in_one() -> None:
    assert one_line("a\r\nb\nc\rd\u2028e") == "a b c d\u2028e"


@pytest.mark.parametrize(
    ("value", "mode", "objective"),
    [(2.5, "min", 2.5), (-2.5, "max", -2.5), (None, "min", 1e9), (None, "max", -1e9), (math.nan, "min", 1e9),
     (math.nan, "max", -1e9), (-math.inf, "min", 1e9), (math.inf, "max", -1e9)],
)  # fmt: skip
def test_an_objective_is_a_number_and_the_worst_where_there_is_none(
    value: float | None, mode: str, objective: float
) -> None:
    assert finite_objective(value, mode) == objective


def test_the_results_of_a_run_agree_with_all_else_that_it_left(train_run: Any, corpus: Path, tmp_path: Path) -> None:
    run = train_run(tmp_path, "trainer.max_steps=6", "trainer.eval_every=2", "metrics.names=[bleu,chrf]",
                    "trainer.metric=valid/ppl", "optim.lr=0.1")  # fmt: skip
    found, state = run.results, run.state()
    assert found.keys() == {"name", "complete", "best_step", "objective", "model", "train", "valid", "test",
                            "baselines", "environment"}  # fmt: skip
    assert (found["name"], found["complete"], found["baselines"]) == ("run", True, {})
    curve = run.curve("valid/ppl")
    assert found["best_step"] == min(curve, key=curve.__getitem__)
    assert found["objective"] == {"metric": "valid/ppl", "mode": "min", "value": found["valid"]["ppl"]}
    for name in ("loss", "ppl", "accuracy", "bleu", "chrf"):
        assert found["valid"][name] == pytest.approx(run.curve(f"valid/{name}")[found["best_step"]], rel=1e-5)
    assert found["model"]["parameters"] == sum(
        tensor.numel() for tensor in {id(tensor): tensor for tensor in run.weights("best").values()}.values()
    )
    train = found["train"]
    assert (train["steps"], train["skipped_updates"], train["target_tokens"]) == (6, 0, state["target_tokens"])
    assert train["epochs"] == pytest.approx(run.curve("train/epoch")[6], abs=1e-4)
    assert train["seconds"] >= state["step_seconds"] > 0
    assert train["target_tokens_per_sec"] == pytest.approx(train["target_tokens"] / state["step_seconds"], rel=1e-3)
    references = [(corpus / "test.tgt").read_text(encoding="utf-8").splitlines()]
    of_test = found["test"]["back"]
    assert of_test["bleu"]["score"] == pytest.approx(sacrebleu.corpus_bleu(run.outputs(), references).score)
    assert of_test["chrf"]["score"] == pytest.approx(
        sacrebleu.corpus_chrf(run.outputs(), references, word_order=2).score
    )
    assert of_test["ppl"]["score"] == pytest.approx(math.exp(of_test["loss"]["score"]))
    for name, score in of_test.items():
        assert run.curve(f"test/back/{name}") == {6: score["score"]}
