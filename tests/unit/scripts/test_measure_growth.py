from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from measure_growth import AXES, Measurement, Workload, measure, row, train, width_keys

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts/benchmarks"
TINY = ["model=gru_tiny", "model.encoder_size=8", "model.embedding_size=8", "model.attention_size=8",
        "trainer.device=cpu", "trainer.threads=1"]  # fmt: skip


class Sent(list):
    """What came through a connection."""

    def send(self, measured: Measurement) -> None:
        self.append((len(measured.seconds), measured.target_tokens))


def test_updates_are_made_on_so_many_tokens() -> None:
    sent = Sent()
    train(sent, Workload(source=5, target=3, tokens=12, vocabulary=9, width=16), TINY, 2)
    assert sent == [(0, 6), (1, 6), (2, 6)]


@pytest.mark.parametrize("axis", AXES)
def test_along_an_axis_only_that_grows(axis: str) -> None:
    points, work = AXES[axis]
    works = [work(point) for point in points]
    changed = {name for work in works for name in vars(work) if getattr(work, name) != getattr(works[0], name)}
    expected = {"length": {"source", "target"}, "batch": {"tokens"}, "depth": {"keys"}}
    assert changed == expected.get(axis, {axis})


def test_growth_is_told_for_a_token() -> None:
    first, second = (
        Measurement([t, 9.0, t, t], tokens, own_mb=300, peak_mb=301) for t, tokens in ((2.0, 1024), (6.0, 2048))
    )
    assert row(64, second, first) == ["64", "6.00", "341", "2,930", "1.50", "300", "301", "0"]
    assert row(64, Measurement([], problem="out of memory"), first)[:3] == ["64", "out of memory", ""]


def test_a_point_that_takes_too_long_is_left() -> None:
    assert measure(Workload(), [], steps=1, limit=0.0).problem == "over 0 s"


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path) -> None:
    """A point that cannot be trained is told in its row, and the others go on."""
    keys = ["model=transformer_tiny", "trainer.device=cpu", "trainer.threads=1"]
    command = [sys.executable, SCRIPTS / "measure_growth.py", "width", *keys, "--points", "7", "16", "--steps", "1",
               "--json", tmp_path / "figures.json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 7 | ended with code 1 |"), "an odd width"
    assert lines[3].split(" | ")[4] == "1.00"
    assert json.loads((tmp_path / "figures.json").read_text())["16"]["target_tokens"] == 4096


def test_a_width_changes_all_that_belongs_to_it() -> None:
    assert width_keys("transformer", 128) == ["model.d_model=128", "model.d_ff=512", "model.num_heads=2"]
    assert "model.encoder_size=64" in width_keys("gru", 128)
