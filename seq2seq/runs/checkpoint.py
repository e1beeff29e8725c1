"""Checkpoints on disk: whole or not there, checked when read, and never pickled."""

import json
import logging
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from seq2seq.errors import TrainingError
from seq2seq.runs.manifest import MANIFEST, STATE, CheckpointError, Manifest, NewerFormatError, read_manifest, seal
from seq2seq.system.files import sync_folder

logger = logging.getLogger(__name__)

_STEP_FOLDER = re.compile(r"step-(\d{8,18})", re.ASCII)
_STEP = re.compile(r"\d{1,18}", re.ASCII)
# What saves work with beside the final names. The mark keeps them apart from any name that a user would give.
_LEFTOVER = re.compile(r"(.+)\.(tmp|old)-\d+x[0-9a-f]{8}", re.ASCII)


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
            CheckpointSaveError: the disk is full or not writable; nothing is left behind, and what was there stays.
        """
        final = self.root / (name or f"step-{step:08d}")
        temporary = _beside(final, "tmp")
        try:
            try:
                temporary.mkdir(parents=True)
                _write_folder(temporary, step, tensors, state=state, belongs_to=belongs_to or {})
                _swap_in(temporary, final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise CheckpointSaveError(_explain_write(error, final, tensors)) from error
        return final

    def link(self, name: str, target: int | Path) -> None:
        """Make `name` ("last", "best") stand for the checkpoint of a step or at a path in this store.

        Raises:
            CheckpointSaveError: the link cannot be written.
        """
        folder = self._step_folder(target) if isinstance(target, int) else target
        if folder.parent.resolve() != self.root.resolve() or not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} is not a checkpoint in {self.root}")
        link = self.root / name
        if folder.name == name:
            return  # a copy of the run that has folders in place of links
        temporary = _beside(link, "tmp")
        with _explained(f"cannot link {link} to {folder.name}"):
            # relative, so that the run folder can be moved
            temporary.symlink_to(folder.name, target_is_directory=True)
            _swap_in(temporary, link)

    def resolve(self, name: str) -> Path:
        """The folder of the checkpoint called `name`: a link's name, a step's number, or a path.

        Raises:
            CheckpointError: there is none; the message lists those there are.
        """
        try:
            found = self._find(name)
        except OSError as error:  # a name that no file can have, a folder that is not ours to read
            raise CheckpointError(f"checkpoint={name}: cannot be read ({error.strerror})") from error
        if found is None:
            names = [path.name for path in self._entries() if self._is_named(path)]
            there = ", ".join(names + [str(step) for step in self.steps()])
            raise CheckpointError(f"checkpoint={name}: not found in {self.root}; there is {there or 'none yet'}")
        return found

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

        Only steps count, and `last` where a copy of the run has a folder in place of that link: they hold what
        it takes to go on.

        Raises:
            CheckpointError: checkpoints exist and all of them are damaged.
            NewerFormatError: the newest sound one was written by a newer version.
        """
        damage: list[str] = []
        candidates = [self._step_folder(step) for step in reversed(self.steps())]
        candidates += [path for path in self._entries() if path.name == "last" and not path.is_symlink()]
        for folder in candidates:
            try:
                return load(folder, files=files)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                damage.append(str(error))
        if damage:
            raise CheckpointError(
                f"no valid checkpoint is left: {'; '.join(damage)}; restore one from a copy, or start over in this "
                "folder (overwrite=true)"
            )
        return None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint folder, in order, whether or not it is sound."""
        found = set()
        for path in self._entries():
            retired = _LEFTOVER.fullmatch(path.name)
            name = retired[1] if retired and retired[2] == "old" else path.name
            match = _STEP_FOLDER.fullmatch(name)
            if match and path.is_dir():
                found.add(int(match[1]))
        return sorted(found)

    def prune(self, keep: Collection[int]) -> None:
        """Delete the checkpoints of all steps but those in `keep` and those that a link stands for.

        Also clears away what interrupted saves left behind.

        Raises:
            CheckpointSaveError: something cannot be deleted.
        """
        self.clean()
        links = [path for path in self._entries() if path.is_symlink() and not _STEP_FOLDER.fullmatch(path.name)]
        linked = {Path(os.readlink(path)).name for path in links}
        with _explained(f"cannot delete old checkpoints in {self.root}"):
            for step in self.steps():
                folder = self._step_folder(step)
                if step not in keep and folder.name not in linked:
                    # renamed first: a kill half-way through deleting must not leave half a checkpoint
                    doomed = _beside(folder, "tmp")
                    os.rename(folder, doomed)
                    _remove(doomed)

    def clean(self) -> None:
        """Finish or undo what a killed process left half done; only for the process that writes.

        Raises:
            CheckpointSaveError: something cannot be renamed or deleted.
        """
        with _explained(f"cannot clear away in {self.root} what an interrupted save left"):
            for path in self._entries():
                match = _LEFTOVER.fullmatch(path.name)
                if match and match[2] == "old" and not os.path.lexists(path.with_name(match[1])):
                    os.rename(path, path.with_name(match[1]))
                elif match:
                    _remove(path)

    def _entries(self) -> list[Path]:
        """What lies in the store, in the order of names; nothing if it does not exist yet.

        Raises:
            CheckpointError: it is there and cannot be read. To take it for empty would be to start the run over.
        """
        try:
            return sorted(self.root.iterdir())
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self.root.is_symlink():
                return []
            raise CheckpointError(f"{self.root}: cannot be read ({error.strerror})") from error

    def _find(self, name: str) -> Path | None:
        """The folder of a step, behind a link, or at a path; whether it is sound shows when it is loaded."""
        if _STEP.fullmatch(name) and self._step_folder(int(name)).is_dir():
            return self._step_folder(int(name))
        inside = self.root / name
        if inside.is_symlink():
            target = self._retired_or_same(self.root / os.readlink(inside))
            return target if target.is_dir() else None
        given = Path(name).parent if Path(name).is_file() else Path(name)
        return next((folder for folder in (inside, given) if (folder / MANIFEST).is_file()), None)

    def _step_folder(self, step: int) -> Path:
        return self._retired_or_same(self.root / f"step-{step:08d}")

    def _retired_or_same(self, folder: Path) -> Path:
        """The folder, or its predecessor if a process was killed between the two renames that replace it."""
        if folder.exists():
            return folder
        retired = sorted(path for path in folder.parent.glob(f"{folder.name}.old-*") if _LEFTOVER.fullmatch(path.name))
        return retired[0] if retired else folder

    def _is_named(self, path: Path) -> bool:
        """Whether this is a checkpoint under a name such as `best`, a link or a folder of its own."""
        other = _LEFTOVER.fullmatch(path.name) or _STEP_FOLDER.fullmatch(path.name)
        return not other and (path / MANIFEST).is_file()


def snapshot(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """CPU copies of what `CheckpointStore.save` takes, which later updates of the originals leave alone.

    Names that share a tensor, in one file or in several, share its copy.
    """
    copies: dict[Hashable, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        key = identity(tensor)
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True)
        return copies[key]

    return {stem: {name: copied(tensor) for name, tensor in named.items()} for stem, named in tensors.items()}


def load(folder: Path, *, files: Sequence[str] | None = None) -> Checkpoint:
    """Read the checkpoint in `folder`; see `CheckpointStore.load`."""
    manifest = read_manifest(folder)
    named = _STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise CheckpointError(f"{folder / MANIFEST}: this is step {manifest.step} under the name of another")
    tensors = {stem: _read_tensors(manifest, stem) for stem in (manifest.tensor_files if files is None else files)}
    return Checkpoint(folder, manifest.step, tensors, manifest.read_state(), dict(manifest.belongs_to))


def _read_tensors(manifest: Manifest, stem: str) -> dict[str, Tensor]:
    path = manifest.folder / f"{stem}.safetensors"
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(manifest.read(path.name))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        # the last three for a dtype that torch lacks and for sizes beyond its integers
        raise CheckpointError(f"{path}: not a safetensors file that can be used ({error})") from error
    for alias, name in manifest.aliases.get(stem, {}).items():
        if name not in tensors or alias in tensors:
            raise CheckpointError(f"{manifest.folder / MANIFEST}: damaged, {path.name} has no {name} to call {alias}")
        tensors[alias] = tensors[name]
    return tensors


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
    files = {path.name: seal(path) for path in sorted(folder.iterdir())}
    Manifest(folder, step, files, {stem: names for stem, names in aliases.items() if names}, dict(belongs_to)).write()
    sync_folder(folder)


def _without_aliases(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """CPU copies that share no memory, and for each name left out the one that holds the same tensor."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[Hashable, str] = {}
    for name, tensor in sorted(named.items()):
        key = identity(tensor)
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


def identity(tensor: Tensor) -> Hashable:
    """Equal for two tensors exactly if they are the same view of the same memory, or both empty and alike."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _beside(final: Path, what: str) -> Path:
    """A name beside the final one for what is not whole yet (`tmp`) or steps aside (`old`)."""
    return final.with_name(f"{final.name}.{what}-{os.getpid()}x{secrets.token_hex(4)}")


def _swap_in(temporary: Path, final: Path) -> None:
    """Rename `temporary` to `final`; only a link can replace a link, so anything else steps aside first."""
    retired = _beside(final, "old")
    if os.path.lexists(final) and not (final.is_symlink() and temporary.is_symlink()):
        os.rename(final, retired)
    os.replace(temporary, final)
    sync_folder(final.parent)
    _remove(retired)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointSaveError(f"{what}: {error}") from error


def _explain_write(error: Exception, final: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> str:
    sizes = {tensor.data_ptr(): tensor.nbytes for named in tensors.values() for tensor in named.values()}
    message = f"cannot write {final}: {error}; it needs {sum(sizes.values()):,} bytes"
    with suppress(OSError):  # a folder that is gone, or not ours to read, cannot say
        there = next(folder for folder in final.parents if folder.exists())
        message += f", and {there} has {shutil.disk_usage(there).free:,} free"
    return message
