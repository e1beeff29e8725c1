from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seq2seq.config.commands import GenerateConfig, GenerateFormat
from seq2seq.inference.generator import GenerationOutput
from seq2seq.pipeline.generate import output_line

OUTPUT = GenerationOutput(
    text="a\nb",
    score=-0.5,
    log_prob=-1.0,
    tokens=["a", "\n", "b", "</s>"],
    source_tokens=["b", "a", "</s>"],
    attention=np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0, 0, 1]], dtype=np.float32),
    copied=[0.9, 0.0, 0.25000004, 0.01],
)


def record(output: GenerationOutput, **settings: Any) -> dict[str, Any]:
    line = output_line([output], GenerateConfig(format=GenerateFormat.jsonl, **settings))
    assert line.endswith(b"\n")
    read: dict[str, Any] = json.loads(line)
    assert read["text"] == output.text
    (best,) = read["nbest"]
    return dict(best)


def test_text_is_one_line() -> None:
    assert output_line([OUTPUT], GenerateConfig()) == b"a b\n"


def test_attention_and_copied_tokens() -> None:
    best = record(OUTPUT, attention=True)
    assert np.array(best["attention"]) == pytest.approx(OUTPUT.attention)
    assert best["copied"] == [0.9, 0.0, 0.25, 0.01]
    assert best["source_tokens"] == ["b", "a", "</s>"]
    assert "copied" not in record(replace(OUTPUT, copied=None), attention=True)


def test_what_was_not_asked_for_is_not_there() -> None:
    assert set(record(OUTPUT)) == {"text", "score", "log_prob", "tokens"}
    best = record(OUTPUT, alignments=True)
    assert best["alignments"] == [1, 0, 0, 2]
    assert not {"attention", "copied"} & set(best)
