"""One checkpoint on disk: a folder of tensors, state and manifest, verified by checksum and never pickled."""

import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from seq2seq.runs.manifest import MANIFEST, STATE, CheckpointError, Manifest, read_manifest, sync_and_hash
from seq2seq.system.files import sync

STEP_FOLDER = re.compile(r"step-(\d{8,18})", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        path: the checkpoint's folder.
        step: number of optimizer updates when it was saved.
        tensors: for each requested file, its tensors by name, on the CPU; tied names share one tensor.
        state: the JSON state given to `CheckpointStore.save`.
        fingerprints: the fingerprints given to `CheckpointStore.save`.
    """

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    fingerprints: dict[str, str]


def snapshot(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Copy the tensors for `CheckpointStore.save` to the CPU, so that later updates do not change them.

    Names that share a tensor, within a file or across files, share its copy.
    """
    distinct = {tensor_id(tensor): tensor for named_tensors in tensors.values() for tensor in named_tensors.values()}
    copies = {key: tensor.detach().to("cpu", copy=True) for key, tensor in distinct.items()}
    return {
        file: {name: copies[tensor_id(tensor)] for name, tensor in named_tensors.items()}
        for file, named_tensors in tensors.items()
    }


def write_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    state: Mapping[str, Any],
    fingerprints: Mapping[str, str],
) -> None:
    """Write a checkpoint's files into an empty folder, the manifest last, and flush them to disk.

    See `CheckpointStore.save`, which makes this atomic.
    """
    aliases: dict[str, dict[str, str]] = {}
    for file, named_tensors in tensors.items():
        stored, aliases[file] = _split_aliases(named_tensors)
        safetensors.torch.save_file(stored, folder / f"{file}.safetensors")
    (folder / STATE).write_text(json.dumps(dict(state)), encoding="utf-8")
    files = {path.name: sync_and_hash(path) for path in sorted(folder.iterdir())}
    Manifest(folder, step, files, {file: names for file, names in aliases.items() if names}, dict(fingerprints)).write()
    sync(folder)


def load_checkpoint(folder: Path, *, files: Sequence[str] | None = None) -> Checkpoint:
    """Read the checkpoint in `folder`; see `CheckpointStore.load`."""
    manifest = read_manifest(folder)
    match = STEP_FOLDER.fullmatch(folder.name)
    if match and int(match[1]) != manifest.step:
        raise CheckpointError(f"{folder / MANIFEST}: this is step {manifest.step}, unlike the folder's name")
    tensors = {file: _read_tensors(manifest, file) for file in (manifest.tensor_files if files is None else files)}
    return Checkpoint(folder, manifest.step, tensors, manifest.read_state(), dict(manifest.fingerprints))


def _read_tensors(manifest: Manifest, file: str) -> dict[str, Tensor]:
    path = manifest.folder / f"{file}.safetensors"
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(manifest.read(path.name))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        # the last three: a dtype that torch lacks, or a size beyond its integers
        raise CheckpointError(f"{path}: not a usable safetensors file ({error})") from error
    for alias, name in manifest.aliases.get(file, {}).items():
        if name not in tensors or alias in tensors:
            raise CheckpointError(
                f"{manifest.folder / MANIFEST}: damaged, alias {alias} of {name} does not fit {path.name}"
            )
        tensors[alias] = tensors[name]
    return tensors


def _split_aliases(named_tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return CPU tensors that share no memory, and for each name left out the stored name of the same tensor."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[Hashable, str] = {}
    for name, tensor in sorted(named_tensors.items()):
        owner = owners.setdefault(tensor_id(tensor), name) if tensor.numel() else name
        if owner == name:
            stored[name] = tensor.detach().to("cpu").contiguous()
        else:
            aliases[name] = owner
    storages = {name: tensor.untyped_storage().data_ptr() for name, tensor in stored.items()}
    users = Counter(storages.values())
    for name, storage in storages.items():
        if users[storage] > 1:  # different views of one storage
            stored[name] = stored[name].clone()
    return stored, aliases


def tensor_id(tensor: Tensor) -> Hashable:
    """Return a key that is equal for two tensors if they are the same view of the same memory, or alike and empty."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
