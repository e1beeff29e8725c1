from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seq2seq.inference.generator import GenerationOutput
from seq2seq.runs.tracking import Tracker
from seq2seq.training.validation import Validator, copy_rate

SOURCES = [f"source {i}" for i in range(100)]
SCORES = {"rouge1": 31.5, "rougeLsum": 28.0}


def output(copied: list[float] | None) -> GenerationOutput:
    tokens = ["a", "b", "</s>"]
    attention = np.full((3, 2), 0.5, dtype=np.float32)
    return GenerationOutput("a b", -1.0, -1.0, tokens, ["a", "</s>"], attention=attention, copied=copied)


class Store:
    """A hundred examples."""

    def __len__(self) -> int:
        return len(SOURCES)

    def source_text(self, i: int) -> str:
        return SOURCES[i]

    def target_text(self, i: int) -> str:
        return f"target {i}"


class Evaluator:
    """Has answers ready and records what it was asked for."""

    def __init__(self, copied: list[float] | None) -> None:
        self.copied = copied
        self.explained: list[str] = []

    def validate(self, model: object, store: Store, *, examples: int) -> tuple[dict[str, float], list[str]]:
        outputs = [f"output {i}" for i in range(examples)]
        return {"loss": 2.0, "ppl": 7.4, "accuracy": 50.0} | (SCORES if outputs else {}), outputs

    def generate_with_attention(self, model: object, texts: Sequence[str]) -> list[GenerationOutput]:
        self.explained = list(texts)
        return [output(self.copied) for _ in texts]


class Recorder(Tracker):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.images: dict[str, NDArray[np.uint8]] = {}
        self.values: dict[str, float] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.values = dict(values)

    def text(self, step: int, tag: str, markdown: str) -> None:
        self.texts[tag] = markdown

    def image(self, step: int, tag: str, pixels: NDArray[np.uint8]) -> None:
        self.images[tag] = pixels


def run(*, copied: list[float] | None, **sizes: int) -> tuple[dict[str, float], Evaluator, Recorder]:
    evaluator, tracker = Evaluator(copied), Recorder()
    settings: dict[str, Any] = {"examples": 80, "samples": 3, "images": 2} | sizes
    validator = Validator(evaluator, Store(), tracker=tracker, **settings)  # type: ignore[arg-type]
    model: Any = SimpleNamespace(output=SimpleNamespace(copies=copied is not None))
    found = validator.run(model)
    assert not tracker.texts, "nothing is written before all is known"
    validator.log(found, 7)
    assert tracker.values == found.values
    return found.values, evaluator, tracker


def test_a_curve_for_each_metric() -> None:
    values, evaluator, tracker = run(copied=None)
    assert values == {"valid/loss": 2.0, "valid/ppl": 7.4, "valid/accuracy": 50.0} | {
        f"valid/{name}": score for name, score in SCORES.items()
    }
    assert evaluator.explained == SOURCES[:2]
    assert sorted(tracker.images) == ["attention/0", "attention/1"]
    assert tracker.texts["samples"].splitlines()[0] == "| source | reference | output |"
    assert len(tracker.texts["samples"].splitlines()) == 2 + 3


def test_copying_has_a_curve_a_column_and_a_place_in_the_pictures() -> None:
    values, evaluator, tracker = run(copied=[0.9, 0.6, 0.0])
    assert values["valid/copy_rate"] == pytest.approx(50.0)
    assert evaluator.explained == SOURCES[:64]
    header, _, first, *_ = tracker.texts["samples"].splitlines()
    assert header == "| source | reference | output | copied, % |"
    assert first.endswith("| <strong>a 90</strong> · <strong>b 60</strong> · &lt;/s&gt; 0 |")
    plain = run(copied=None)[2]
    assert tracker.images["attention/0"].shape == plain.images["attention/0"].shape
    assert not np.array_equal(tracker.images["attention/0"], plain.images["attention/0"])


def test_ranks_that_do_not_write_measure_the_same() -> None:
    values, _, tracker = run(copied=[0.9, 0.6, 0.0], samples=0, images=0)
    assert values == run(copied=[0.9, 0.6, 0.0])[0]
    assert not tracker.texts
    assert not tracker.images


def test_no_more_is_explained_than_was_decoded() -> None:
    assert run(copied=[1.0, 1.0, 1.0], examples=5)[1].explained == SOURCES[:5]
    values, evaluator, _ = run(copied=[1.0, 1.0, 1.0], examples=0)
    assert set(values) == {"valid/loss", "valid/ppl", "valid/accuracy"}
    assert evaluator.explained == []


def test_copy_rate_is_a_mean_over_tokens() -> None:
    short = GenerationOutput("", 0.0, 0.0, ["</s>"], ["a", "</s>"], copied=[0.5])
    blank = GenerationOutput("", 0.0, 0.0, [], [])
    assert copy_rate([output([1.0, 1.0, 0.5]), short, blank]) == pytest.approx(75.0)
    assert copy_rate([blank]) == 0.0


def test_drawing_leaves_no_garbage() -> None:
    """Figures hold megabytes in reference cycles; left to Python, they are there for thousands of steps."""
    from matplotlib.figure import Figure

    run(copied=None)
    assert not [thing for thing in gc.get_objects() if type(thing) is Figure]
