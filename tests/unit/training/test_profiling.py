import json
import logging
from pathlib import Path

import pytest
import torch

from seq2seq.training.profiling import StepProfiler

CPU = torch.device("cpu")


def run(profiler: StepProfiler, *steps: int) -> None:
    for step in steps:
        with profiler.step(step):
            torch.ones(3).add_(step)


def recorded(path: Path) -> list[str]:
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return sorted(event["name"] for event in events if event["name"].startswith("step ") and "dur" in event)


def test_a_run_that_resumes_within_the_range_records_the_rest(tmp_path: Path) -> None:
    profiler = StepProfiler([2, 5], tmp_path, CPU)
    run(profiler, 4, 5, 6)
    profiler.close()
    assert recorded(tmp_path / "steps-2-5.json") == ["step 4", "step 5"]


def test_an_unfinished_range_is_dropped(tmp_path: Path) -> None:
    profiler = StepProfiler([2, 5], tmp_path, CPU)
    run(profiler, 1, 2, 3)
    profiler.close()
    profiler.close()
    assert list(tmp_path.iterdir()) == []
    run(StepProfiler([1, 1], tmp_path, CPU), 1)  # torch allows one profiler at a time
    assert recorded(tmp_path / "steps-1-1.json") == ["step 1"]


def test_a_profile_that_cannot_be_written_does_not_end_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profile").write_text("a file")
    with caplog.at_level(logging.WARNING, logger="seq2seq"):
        run(StepProfiler([1, 1], tmp_path / "profile", CPU), 1, 2)
    assert f"cannot write the profile {tmp_path}/profile/steps-1-1.json" in caplog.text


def test_nothing_is_recorded_by_default(tmp_path: Path) -> None:
    run(StepProfiler(None, tmp_path, CPU), 0, 1, 2)
    assert list(tmp_path.iterdir()) == []
