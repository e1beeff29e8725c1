"""Runs that resume with another machine, another number of processes, or another test set."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seq2seq.errors import Interrupted


def test_a_test_set_may_be_added_to_a_run_under_way(train_run: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_run(tmp_path, "trainer.stop_after_minutes=1e-9")
    added = [f"+data.test.more.source={corpus}/valid.src", f"+data.test.more.target={corpus}/valid.tgt"]
    assert "bleu" in train_run(tmp_path, *added).results["test"]["more"]


def test_another_machine_is_allowed_and_said(train_run: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_run(tmp_path, "trainer.stop_after_minutes=1e-9", "trainer.eval_examples=0")
    run = train_run(tmp_path, "trainer.threads=2", "trainer.max_steps=4", "trainer.eval_examples=0")
    assert "resuming with threads 1 -> 2: results will not be bit-identical" in run.log
    assert run.results["complete"]


@pytest.mark.slow
def test_another_number_of_processes_is_allowed_and_said(train_run: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_run(tmp_path, "trainer.stop_after_minutes=1e-9")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "seq2seq", "train",
         *train_run.arguments(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = train_run.at(tmp_path)
    assert "resuming with ranks 1 -> 2: results will not be bit-identical" in run.log
    assert run.results["train"]["steps"] == 12
