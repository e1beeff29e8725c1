from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
import measure_length


def test_keys_reach_the_command_beside_lists_of_models_and_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, int, list[str]]] = []

    def measure(folder: Path, model: str, length: int, *, settings: list[str], options: Any) -> str:
        calls.append((model, length, [*settings, *options.overrides]))
        return "1.0 | 2"

    monkeypatch.setattr(measure_length, "measure", measure)
    arguments = ["--models", "gru_tiny", "--settings", "plain", "--lengths", "8", "16", "--overrides", "seed=2", "x=y"]
    monkeypatch.setattr(sys, "argv", ["measure_length.py", "--folder", str(tmp_path), *arguments])
    measure_length.main()
    keys = ["model.copy=false", "seed=2", "x=y"]
    assert calls == [("gru_tiny", 8, keys), ("gru_tiny", 16, keys)]
    assert "| gru_tiny | plain | 16 | 1.0 | 2 |" in capsys.readouterr().out
    assert all(len(line.split()) == 15 for line in (tmp_path / "16/train.src").read_text(encoding="utf-8").splitlines())
