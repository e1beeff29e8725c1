"""Checkpoint averaging."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.runs.checkpoint import load_checkpoint, tensor_id
from seq2seq.runs.manifest import CheckpointError


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Return the element-wise mean of the model weights of several checkpoints (Vaswani et al. 2017, section 6.1).

    Sums are accumulated in float64 and rounded once, to each tensor's own dtype. Integer tensors must be equal.
    Tied names share one mean, as they share one tensor.

    Args:
        paths: checkpoint folders, at least one.

    Raises:
        UserError: names, shapes, types or integer values differ; the message names both checkpoints.
        CheckpointError: one of them is damaged; averaging only the others would not be what was asked for.
    """
    if not paths:
        raise UserError("no checkpoints to average")
    first = _weights_to_average(paths[0])
    sums = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    for path in paths[1:]:
        other = _weights_to_average(path)
        _check_same_layout(first, other, paths[0], path)
        for name, tensor in other.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.double()
            elif not torch.equal(sums[name], tensor):
                raise UserError(f"cannot average {paths[0]} and {path}: {name} is not equal in both")
    means: dict[str, Tensor] = {}
    owners: dict[Hashable, Tensor] = {}
    for name, total in sums.items():
        mean = (total / len(paths)).to(first[name].dtype) if total.is_floating_point() else total
        owner = owners.setdefault(tensor_id(first[name]), mean)
        means[name] = owner if torch.equal(owner, mean) else mean
    return means


def _weights_to_average(path: Path) -> dict[str, Tensor]:
    try:
        return load_checkpoint(path, files=["model"]).tensors["model"]
    except CheckpointError as error:
        raise CheckpointError(f"cannot average: {error}; delete {path} to average the others") from error


def _check_same_layout(first: Mapping[str, Tensor], other: Mapping[str, Tensor], path: Path, other_path: Path) -> None:
    differing = sorted(first.keys() ^ other.keys())
    differing += sorted(
        name
        for name in first.keys() & other.keys()
        if (first[name].shape, first[name].dtype) != (other[name].shape, other[name].dtype)
    )
    if differing:
        raise UserError(
            f"cannot average {path} and {other_path}: their models differ in {', '.join(differing[:3])}"
            + (f" and {len(differing) - 3} more tensors" if len(differing) > 3 else "")
        )
