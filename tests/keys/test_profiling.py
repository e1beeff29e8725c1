"""`trainer.profile_steps`: which steps the profiler records, and that nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.errors import UserError

SHORT = ("trainer.eval_examples=0", "search=greedy", "search.max_length=2", "trainer.max_steps=4")


def test_profile_steps(train_run: Any, tmp_path: Path) -> None:
    """A trace with these steps and no others, and their operators; the weights do not depend on it."""
    profiled = train_run(tmp_path, *SHORT, "trainer.profile_steps=[2,3]")
    plain = train_run(tmp_path / "plain", *SHORT)
    assert all(torch.equal(weight, plain.weights()[name]) for name, weight in profiled.weights().items())
    assert not (plain.folder / "profile").exists()
    trace = json.loads((profiled.folder / "profile" / "steps-2-3.json").read_text(encoding="utf-8"))
    names = [event["name"] for event in trace["traceEvents"] if "dur" in event]
    assert sorted(name for name in names if name.startswith("step ")) == ["step 2", "step 3"]
    assert "aten::mm" in names
    assert "aten::mm" in (profiled.folder / "profile" / "steps-2-3.txt").read_text(encoding="utf-8")
    assert f"profile of steps 2 to 3: {profiled.folder / 'profile' / 'steps-2-3.json'}" in profiled.log
    with pytest.raises(UserError, match=r"trainer\.profile_steps=\[2, 9\]: must be .*, at most trainer\.max_steps=4"):
        train_run(tmp_path / "late", *SHORT, "trainer.profile_steps=[2,9]")
