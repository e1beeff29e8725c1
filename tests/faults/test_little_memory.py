"""A batch that does not fit into memory is halved until it does, for good; one example that does not is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.inference.oom import BatchSplitter

PROGRAM = Path(__file__).with_name("little_memory.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not sys.platform.startswith("linux"):
        pytest.skip("the address space can be limited on Linux only")
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path_factory.mktemp("little")],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) | {"log": done.stderr.splitlines()}


@pytest.mark.slow
def test_search_halves_its_batches_until_they_fit(outcome: dict[str, Any]) -> None:
    search = outcome["search"]
    assert search["failures"] >= 2
    assert len(set(search["expected"])) > 100
    assert search["found"] == pytest.approx(search["expected"], abs=1e-4)


@pytest.mark.slow
def test_the_loss_is_of_all_examples_whatever_fits(outcome: dict[str, Any]) -> None:
    assert outcome["loss"]["failures"] >= 2
    assert outcome["loss"]["found"] == pytest.approx(outcome["loss"]["expected"], abs=1e-5)


@pytest.mark.slow
def test_a_split_batch_is_logged_once(outcome: dict[str, Any]) -> None:
    for action in ("decoding", "computing the loss of"):
        lines = [line for line in outcome["log"] if f"out of memory {action}" in line]
        assert lines == [
            f"out of memory {action} 1500 examples at once; continuing with 750, or fewer if that is still too many"
        ]


@pytest.mark.slow
def test_one_source_that_does_not_fit_alone_names_the_keys(outcome: dict[str, Any]) -> None:
    assert outcome["long"]["error"] == (
        "out of memory decoding a single example; lower search.beam_size=2, "
        "search.max_length=3 or data.max_source_length=50000"
    )


@pytest.mark.gpu
def test_a_gpus_memory_that_runs_out_is_freed_before_the_next_try() -> None:
    device = torch.device("cuda")
    _, whole = torch.cuda.mem_get_info(device)
    splitter = BatchSplitter(device, action="filling")
    item = whole // 6  # eight of them do not fit, nor do four that are held twice

    def fill(indices: list[int]) -> int:
        first = torch.empty(len(indices) * item, dtype=torch.uint8, device=device)
        return int(torch.empty_like(first).numel() > 0) * len(indices)

    sizes = [size for _, size in splitter.map(list(range(8)), fill, fix="")]
    assert sizes == [2, 2, 2, 2]
    assert splitter.failures == 2
    assert [size for _, size in splitter.map(list(range(8)), fill, fix="")] == sizes
    assert splitter.failures == 2
