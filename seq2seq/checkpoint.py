"""Checkpoints on disk: whole or not there, checked when read, and never pickled."""

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from seq2seq.errors import TrainingError, UserError
from seq2seq.files import sync_folder

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_RETIRED_FOLDER = re.compile(r"step-(\d{8,})\.old-\w+")


class CheckpointError(UserError):
    """A checkpoint that is absent, damaged, or written by a newer version."""


class NewerFormatError(CheckpointError):
    """A checkpoint that a newer version of the program wrote: sound, but not for this one to read."""


class CheckpointSaveError(TrainingError):
    """A checkpoint could not be written; those written before are untouched."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read from one checkpoint folder.

    Attributes:
        path: the folder.
        step: number of updates made when it was saved.
        tensors: for each file asked for, its tensors by name, on the CPU; tied names share one tensor.
        state: the JSON state given to `CheckpointStore.save`.
        belongs_to: the fingerprints given to `CheckpointStore.save`.
    """

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    belongs_to: dict[str, str]


class CheckpointStore:
    """The `checkpoints` folder of a run: `step-00001000/` and its like, and the links `last` and `best`.

    One process writes (the run folder's lock sees to it); any number may read meanwhile. A checkpoint is
    written to a temporary folder, flushed to the disk and renamed, so that a folder under its final name is
    complete.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        *,
        belongs_to: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Path:
        """Write one checkpoint and return its folder; one of the same name is replaced.

        Args:
            step: number of updates made.
            tensors: for each file ("model", "optimizer", ...) its tensors by name. Names that share one
                tensor (tied weights) are stored once.
            state: what JSON can hold; NaN and the infinities come back as they were.
            belongs_to: fingerprints of what the checkpoint is of use with (tokenizer, data, config).
            name: folder name, if it is to be another than `step-<8 digits>`.

        Raises:
            CheckpointSaveError: the disk is full or not writable; nothing is left behind.
        """
        final = self.root / (name or f"step-{step:08d}")
        mark = f"{os.getpid()}x{secrets.token_hex(4)}"
        temporary = final.with_name(f"{final.name}.tmp-{mark}")
        try:
            temporary.mkdir(parents=True)
            _write_folder(temporary, step, tensors, state=state, belongs_to=belongs_to or {})
            _swap_in(temporary, final, retired=final.with_name(f"{final.name}.old-{mark}"))
        except (OSError, SafetensorError) as error:
            raise CheckpointSaveError(_explain_write(error, final, tensors)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return final

    def link(self, name: str, target: int | Path) -> None:
        """Make `name` ("last", "best") stand for the checkpoint of a step or at a path in this store.

        Raises:
            CheckpointSaveError: the link cannot be written.
        """
        folder = self._step_folder(target) if isinstance(target, int) else target
        if folder.parent.resolve() != self.root.resolve() or not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} is not a checkpoint in {self.root}")
        mark = f"{os.getpid()}x{secrets.token_hex(4)}"
        temporary = self.root / f"{name}.tmp-{mark}"
        try:
            # relative, so that the run folder can be moved
            temporary.symlink_to(folder.name, target_is_directory=True)
            _swap_in(temporary, self.root / name, retired=self.root / f"{name}.old-{mark}")
        except OSError as error:
            raise CheckpointSaveError(f"cannot link {self.root / name} to {folder.name}: {error}") from error

    def resolve(self, name: str) -> Path:
        """The folder of the checkpoint called `name`: a link's name, a step's number, or a path.

        Raises:
            CheckpointError: there is none; the message lists those there are.
        """
        if name.isascii() and name.isdigit() and (self._step_folder(int(name)) / MANIFEST).is_file():
            return self._step_folder(int(name))
        inside = self.root / name
        if inside.is_symlink():
            inside = self._retired_or_same(self.root / os.readlink(inside))
        given = Path(name).parent if Path(name).is_file() else Path(name)
        for candidate in (inside, given):
            if (candidate / MANIFEST).is_file():
                return candidate
        names = [path.name for path in sorted(self.root.glob("*")) if self._is_named(path)]
        there = ", ".join(names + [str(step) for step in self.steps()])
        raise CheckpointError(f"checkpoint={name}: not found in {self.root}; there is {there or 'none yet'}")

    def load(self, name: str | Path, *, files: Sequence[str] | None = None) -> Checkpoint:
        """Read a checkpoint and check every byte of what is read against the manifest.

        Args:
            name: what `resolve` knows, or a checkpoint's folder.
            files: which tensor files to read, without suffix; None reads all of them.

        Raises:
            CheckpointError: it is absent or damaged; the message names the file.
            NewerFormatError: a newer version wrote it.
        """
        folder = self.resolve(name) if isinstance(name, str) else name
        return load(folder, files=files)

    def latest_valid(self, *, files: Sequence[str] | None = None) -> Checkpoint | None:
        """The newest sound checkpoint, with a warning for each damaged one passed over; None if none exist.

        Raises:
            CheckpointError: checkpoints exist and all of them are damaged.
            NewerFormatError: the newest sound one was written by a newer version.
        """
        damage: list[str] = []
        for step in reversed(self.steps()):
            try:
                return load(self._step_folder(step), files=files)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                damage.append(str(error))
        if damage:
            raise CheckpointError("no valid checkpoint is left: " + "; ".join(damage))
        return None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint folder, in order, whether or not it is sound."""
        found = set()
        for path in self.root.glob("step-*"):
            match = _STEP_FOLDER.fullmatch(path.name) or _RETIRED_FOLDER.fullmatch(path.name)
            if match and path.is_dir():
                found.add(int(match[1]))
        return sorted(found)

    def prune(self, keep: Collection[int]) -> None:
        """Delete the checkpoints of all steps but those in `keep` and those that a link stands for.

        Also clears away what interrupted saves left behind.
        """
        self.clean()
        linked = {Path(os.readlink(path)).name for path in self.root.glob("*") if path.is_symlink()}
        for step in self.steps():
            folder = self._step_folder(step)
            if step not in keep and folder.name not in linked:
                # renamed first: a kill half-way through deleting must not leave half a checkpoint
                doomed = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
                os.rename(folder, doomed)
                shutil.rmtree(doomed)

    def clean(self) -> None:
        """Finish or undo what a killed process left half done; only for the process that writes."""
        for path in sorted(self.root.glob("*.old-*")):
            original = path.with_name(path.name.split(".old-")[0])
            if os.path.lexists(original):
                _remove(path)
            else:
                os.rename(path, original)
        for path in sorted(self.root.glob("*.tmp-*")):
            _remove(path)

    def _step_folder(self, step: int) -> Path:
        return self._retired_or_same(self.root / f"step-{step:08d}")

    def _retired_or_same(self, folder: Path) -> Path:
        """The folder, or its predecessor if a process was killed between the two renames that replace it."""
        if folder.exists():
            return folder
        return next(iter(sorted(folder.parent.glob(f"{folder.name}.old-*"))), folder)

    def _is_named(self, path: Path) -> bool:
        """Whether this is a checkpoint under a name such as `best`, a link or a folder of its own."""
        leftover = ".tmp-" in path.name or ".old-" in path.name
        return not leftover and not _STEP_FOLDER.fullmatch(path.name) and (path / MANIFEST).is_file()


def snapshot(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """CPU copies of what `CheckpointStore.save` takes, which later updates of the originals leave alone.

    Names that share a tensor, in one file or in several, share its copy.
    """
    copies: dict[Hashable, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        key = _identity(tensor)
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True)
        return copies[key]

    return {stem: {name: copied(tensor) for name, tensor in named.items()} for stem, named in tensors.items()}


def load(folder: Path, *, files: Sequence[str] | None = None) -> Checkpoint:
    """Read the checkpoint in `folder`; see `CheckpointStore.load`."""
    manifest = _read_manifest(folder)
    stems = [Path(name).stem for name in manifest["files"] if name != STATE] if files is None else files
    tensors: dict[str, dict[str, Tensor]] = {}
    for stem in stems:
        data = _read_checked(folder / f"{stem}.safetensors", manifest)
        try:
            tensors[stem] = safetensors.torch.load(data)
        except SafetensorError as error:
            raise CheckpointError(f"{folder / stem}.safetensors: not a safetensors file ({error})") from error
        for alias, name in manifest["aliases"].get(stem, {}).items():
            tensors[stem][alias] = tensors[stem][name]
    state = json.loads(_read_checked(folder / STATE, manifest))
    return Checkpoint(folder, manifest["step"], tensors, state, manifest["belongs_to"])


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The element-wise mean of the model weights of several checkpoints (Vaswani et al. 2017, section 6.1).

    Sums are kept in float64 and rounded once, to each tensor's own dtype. Integer tensors must be equal.

    Args:
        paths: checkpoint folders, at least one.

    Raises:
        UserError: names, shapes or integer values differ; the message names both checkpoints.
    """
    if not paths:
        raise UserError("no checkpoints to average")
    first = load(paths[0], files=["model"]).tensors["model"]
    sums = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    for path in paths[1:]:
        other = load(path, files=["model"]).tensors["model"]
        _check_same_layout(first, other, paths[0], path)
        for name, tensor in other.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.double()
            elif not torch.equal(sums[name], tensor):
                raise UserError(f"cannot average {paths[0]} and {path}: {name} is not equal in both")
    return {
        name: (total / len(paths)).to(first[name].dtype) if total.is_floating_point() else total
        for name, total in sums.items()
    }


def _check_same_layout(first: Mapping[str, Tensor], other: Mapping[str, Tensor], path: Path, other_path: Path) -> None:
    odd = sorted(first.keys() ^ other.keys())
    odd += sorted(name for name in first.keys() & other.keys() if first[name].shape != other[name].shape)
    if odd:
        raise UserError(
            f"cannot average {path} and {other_path}: their models differ in {', '.join(odd[:3])}"
            + (f" and {len(odd) - 3} more tensors" if len(odd) > 3 else "")
        )


def _write_folder(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    state: Mapping[str, Any],
    belongs_to: Mapping[str, str],
) -> None:
    """Fill an empty folder with a checkpoint's files, the manifest last, all of it flushed to the disk."""
    aliases: dict[str, dict[str, str]] = {}
    for stem, named in tensors.items():
        stored, aliases[stem] = _without_aliases(named)
        safetensors.torch.save_file(stored, folder / f"{stem}.safetensors")
    (folder / STATE).write_text(json.dumps(dict(state)), encoding="utf-8")
    manifest = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "files": {path.name: _seal(path) for path in sorted(folder.iterdir())},
        "aliases": {stem: names for stem, names in aliases.items() if names},
        "belongs_to": dict(belongs_to),
    }
    manifest["sha256"] = _digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _seal(folder / MANIFEST)
    sync_folder(folder)


def _without_aliases(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """CPU copies that share no memory, and for each name left out the one that holds the same tensor."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[Hashable, str] = {}
    for name, tensor in sorted(named.items()):
        key = _identity(tensor)
        if tensor.numel() and key in owners:
            aliases[name] = owners[key]
            continue
        owners[key] = name
        stored[name] = tensor.detach().to("cpu").contiguous()
    storages = {name: tensor.untyped_storage().data_ptr() for name, tensor in stored.items()}
    users = Counter(storages.values())
    for name, storage in storages.items():
        if users[storage] > 1:  # views of one memory that are not the same tensor
            stored[name] = stored[name].clone()
    return stored, aliases


def _identity(tensor: Tensor) -> Hashable:
    """Equal for two tensors exactly if they are the same view of the same memory, or both empty and alike."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _seal(path: Path) -> dict[str, Any]:
    """Flush the file to the disk and return its size and hash for the manifest."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _swap_in(temporary: Path, final: Path, *, retired: Path) -> None:
    """Rename `temporary` to `final`; only a link can replace a link, so anything else steps aside first."""
    if os.path.lexists(final) and not (final.is_symlink() and temporary.is_symlink()):
        os.rename(final, retired)
    os.replace(temporary, final)
    sync_folder(final.parent)
    _remove(retired)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _explain_write(error: Exception, final: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> str:
    sizes = {tensor.data_ptr(): tensor.nbytes for named in tensors.values() for tensor in named.values()}
    needed = sum(sizes.values())
    return f"cannot write {final} ({needed:,} bytes): {error}"


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's content, its own `sha256` field left out."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both of this kind
        raise CheckpointError(f"{path}: damaged, not JSON ({error})") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: checkpoint format {version} is newer than this version of the program, "
            f"which reads up to {FORMAT_VERSION}: update it"
        )
    if version != FORMAT_VERSION or manifest.get("sha256") != _digest_of(manifest):
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    checked: dict[str, Any] = manifest
    return checked


def _read_checked(path: Path, manifest: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint file, read once so that what was checked is what gets used."""
    expected = manifest["files"].get(path.name)
    if expected is None:
        raise CheckpointError(f"{path}: this checkpoint holds no such file, only {', '.join(manifest['files'])}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != expected["bytes"]:
        raise CheckpointError(f"{path}: damaged, {len(data)} bytes long instead of {expected['bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    return data
