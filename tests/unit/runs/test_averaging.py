from pathlib import Path

import pytest
import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.runs.averaging import average
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.manifest import CheckpointError


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_is_the_mean_rounded_once(store: CheckpointStore, dtype: torch.dtype) -> None:
    weights = [torch.randn(40, 3, generator=torch.Generator().manual_seed(k)).to(dtype) for k in range(3)]
    buffer = torch.arange(4)
    paths = [
        store.save(k, {"model": {"weight": weight, "tied": weight, "ids": buffer}}, {})
        for k, weight in enumerate(weights)
    ]
    mean = average(paths)
    expected = torch.stack([weight.double() for weight in weights]).mean(0).to(dtype)
    assert mean.keys() == {"weight", "tied", "ids"}
    for name in ("weight", "tied"):
        assert mean[name].dtype == dtype
        torch.testing.assert_close(mean[name], expected, rtol=1e-7 if dtype == torch.float32 else 0, atol=0)
    assert torch.equal(mean["ids"], buffer)
    assert torch.equal(average(paths[:1])["weight"], weights[0])


def test_average_refuses_models_that_differ(store: CheckpointStore) -> None:
    def of(step: int, **tensors: Tensor) -> Path:
        return store.save(step, {"model": tensors}, {})

    base = of(1, weight=torch.ones(2), ids=torch.tensor([1]))
    with pytest.raises(UserError, match=r"step-00000001 and .*step-00000002: .* bias, ids$"):
        average([base, of(2, weight=torch.ones(2), bias=torch.ones(1))])
    with pytest.raises(UserError, match=r"differ in weight$"):
        average([base, of(3, weight=torch.ones(3), ids=torch.tensor([1]))])
    with pytest.raises(UserError, match=r"ids is not equal in both"):
        average([base, of(4, weight=torch.ones(2), ids=torch.tensor([2]))])
    with pytest.raises(UserError, match=r"differ in weight$"):
        average([base, of(5, weight=torch.ones(2, dtype=torch.int32), ids=torch.tensor([1]))])
    with pytest.raises(UserError, match="no checkpoints"):
        average([])


def test_average_refuses_a_damaged_checkpoint_and_says_which(store: CheckpointStore) -> None:
    paths = [store.save(step, {"model": {"weight": torch.full((3,), step)}}, {}) for step in (1, 2, 3)]
    weights = paths[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"step-00000002/model\.safetensors: damaged.*; delete .*-00000002 to"):
        average(paths)
