from pathlib import Path

import torch
from torch import nn

from seq2seq.runs.checkpoint import snapshot
from seq2seq.runs.checkpoint_store import CheckpointStore


def test_a_snapshot_is_what_was_there_when_it_was_taken() -> None:
    tensors = {"model": {"weight": torch.randn(5, 7), "count": torch.tensor(7)}, "optimizer": {"m": torch.randn(5, 7)}}
    whole = torch.arange(6.0).reshape(2, 3)
    tensors["model"] |= {"transposed": whole.T, "tied": tensors["model"]["weight"], "none": whole[:0]}
    tensors["ema"] = {"weight": tensors["model"]["weight"]}
    expected = {file: {name: t.clone() for name, t in named.items()} for file, named in tensors.items()}
    taken = snapshot(tensors)
    for tensor in (whole, *(tensor for named in tensors.values() for tensor in named.values())):
        tensor.fill_(-1)
    for file, named in expected.items():
        assert taken[file].keys() == named.keys()
        for name, tensor in named.items():
            assert torch.equal(taken[file][name], tensor), name
    assert taken["model"]["tied"] is taken["model"]["weight"] is taken["ema"]["weight"]


def test_a_snapshot_of_a_model_saves_the_same_bytes_as_the_model(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    model[1].weight = model[0].weight
    live = store.save(1, {"model": model.state_dict()}, {})
    taken = snapshot({"model": model.state_dict()})
    assert not any(tensor.requires_grad for tensor in taken["model"].values())
    copied = store.save(1, taken, {}, name="copied")
    for file in ("model.safetensors", "manifest.json"):
        assert (live / file).read_bytes() == (copied / file).read_bytes()
