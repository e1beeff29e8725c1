"""The checkpoints of a run: saved atomically, found by step or name, deleted when no longer needed."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from seq2seq.errors import TrainingError
from seq2seq.runs.checkpoint import STEP_FOLDER, Checkpoint, load_checkpoint, write_checkpoint
from seq2seq.runs.manifest import MANIFEST, CheckpointError, NewerFormatError
from seq2seq.system.files import remove, sync

logger = logging.getLogger(__name__)

_STEP = re.compile(r"\d{1,18}", re.ASCII)
# Temporary (tmp) and replaced (old) entries of saves. The suffix cannot clash with a name that a user would choose.
_LEFTOVER = re.compile(r"(.+)\.(tmp|old)-\d+x[0-9a-f]{8}", re.ASCII)


class CheckpointSaveError(TrainingError):
    """A checkpoint could not be written; earlier checkpoints are untouched."""


class CheckpointStore:
    """The `checkpoints` folder of a run: one folder per step (`step-00001000`), and the links `last` and `best`.

    A single process writes (the run folder's lock ensures it); any number of processes may read at the same time.
    A checkpoint is written to a temporary folder, flushed to disk and renamed, so that a folder with its final
    name is complete.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        *,
        fingerprints: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Path:
        """Write a checkpoint and return its folder; an existing one of the same name is replaced.

        Args:
            step: number of optimizer updates so far.
            tensors: for each file ("model", "optimizer", ...) its tensors by name. Names that share one
                tensor (tied weights) are stored once.
            state: JSON-serializable values; NaN and infinities survive the round trip.
            fingerprints: what the weights depend on: hashes of data and tokenizer, values of the configuration.
            name: folder name; default `step-<8 digits>`.

        Raises:
            CheckpointSaveError: the disk is full or not writable; no partial files remain, and existing
                checkpoints are untouched.
        """
        final = self.root / (name or f"step-{step:08d}")
        temporary = _temporary_name(final, "tmp")
        try:
            try:
                temporary.mkdir(parents=True)
                write_checkpoint(temporary, step, tensors, state=state, fingerprints=fingerprints or {})
                _replace(temporary, final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise CheckpointSaveError(_write_error_message(error, final, tensors)) from error
        return final

    def link(self, name: str, target: int | Path) -> None:
        """Point the link `name` ("last", "best") at a checkpoint of this store, given by its step or path.

        Raises:
            CheckpointSaveError: the link cannot be written.
        """
        folder = self._step_folder(target) if isinstance(target, int) else target
        if folder.parent.resolve() != self.root.resolve() or not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} is not a checkpoint in {self.root}")
        link = self.root / name
        if folder.name == name:
            return  # in a copy of the run that has folders instead of links
        temporary = _temporary_name(link, "tmp")
        with _wrap_os_error(f"cannot link {link} to {folder.name}"):
            # relative, so that the run folder stays movable
            temporary.symlink_to(folder.name, target_is_directory=True)
            _replace(temporary, link)

    def resolve(self, name: str) -> Path:
        """Return the folder of the checkpoint `name`: a link's name, a step, or a path.

        Raises:
            CheckpointError: it does not exist; the message lists the available checkpoints.
        """
        try:
            found = self._find(name)
        except OSError as error:  # an invalid file name, or no permission to read the folder
            raise CheckpointError(f"checkpoint={name}: cannot be read ({error.strerror})") from error
        if found is None:
            names = [path.name for path in self._entries() if self._is_named(path)]
            available = ", ".join(names + [str(step) for step in self.steps()])
            raise CheckpointError(f"checkpoint={name}: not found in {self.root}; available: {available or 'none yet'}")
        return found

    def load(self, name: str | Path, *, files: Sequence[str] | None = None) -> Checkpoint:
        """Read a checkpoint and verify size and checksum of every file read.

        Args:
            name: a name that `resolve` accepts, or a checkpoint's folder.
            files: tensor files to read, without suffix; None reads all.

        Raises:
            CheckpointError: it is missing or damaged; the message names the file.
            NewerFormatError: a newer version wrote it.
        """
        folder = self.resolve(name) if isinstance(name, str) else name
        return load_checkpoint(folder, files=files)

    def latest_valid(self, *, files: Sequence[str] | None = None) -> Checkpoint | None:
        """Load the newest valid checkpoint, with a warning for each damaged one skipped; None if none exist.

        Candidates are the step folders, and `last` if a copy of the run has a folder instead of that link: only
        these hold everything needed to resume.

        Raises:
            CheckpointError: checkpoints exist and all of them are damaged.
            NewerFormatError: the newest valid one was written by a newer version.
        """
        errors: list[str] = []
        candidates = [self._step_folder(step) for step in reversed(self.steps())]
        candidates += [path for path in self._entries() if path.name == "last" and not path.is_symlink()]
        for folder in candidates:
            try:
                return load_checkpoint(folder, files=files)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                logger.warning("%s; trying the previous checkpoint", error)
                errors.append(str(error))
        if errors:
            raise CheckpointError(
                f"no valid checkpoint is left: {'; '.join(errors)}; restore one from a backup, or start over in this "
                "folder (overwrite=true)"
            )
        return None

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint folder, in ascending order, valid or not."""
        found = set()
        for path in self._entries():
            leftover = _LEFTOVER.fullmatch(path.name)
            name = leftover[1] if leftover and leftover[2] == "old" else path.name
            match = STEP_FOLDER.fullmatch(name)
            if match and path.is_dir():
                found.add(int(match[1]))
        return sorted(found)

    def prune(self, keep: Collection[int]) -> None:
        """Delete the checkpoints of all steps except those in `keep` and those that a link points to.

        Also cleans up after interrupted saves.

        Raises:
            CheckpointSaveError: something cannot be deleted.
        """
        self.clean()
        links = [path for path in self._entries() if path.is_symlink() and not STEP_FOLDER.fullmatch(path.name)]
        linked = {Path(os.readlink(path)).name for path in links}
        with _wrap_os_error(f"cannot delete old checkpoints in {self.root}"):
            for step in self.steps():
                folder = self._step_folder(step)
                if step not in keep and folder.name not in linked:
                    # rename first: a kill during the deletion must not leave half a checkpoint
                    to_delete = _temporary_name(folder, "tmp")
                    os.rename(folder, to_delete)
                    remove(to_delete)

    def clean(self) -> None:
        """Finish or undo saves that a killed process left half done; only for the process that writes.

        Raises:
            CheckpointSaveError: something cannot be renamed or deleted.
        """
        with _wrap_os_error(f"cannot clean up after an interrupted save in {self.root}"):
            for path in self._entries():
                match = _LEFTOVER.fullmatch(path.name)
                if match and match[2] == "old" and not os.path.lexists(path.with_name(match[1])):
                    os.rename(path, path.with_name(match[1]))
                elif match:
                    remove(path)

    def _entries(self) -> list[Path]:
        """List the store's files and folders by name; empty if the store does not exist yet.

        Raises:
            CheckpointError: it exists but cannot be read. Treating it as empty would start the run over.
        """
        try:
            return sorted(self.root.iterdir())
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self.root.is_symlink():
                return []
            raise CheckpointError(f"{self.root}: cannot be read ({error.strerror})") from error

    def _find(self, name: str) -> Path | None:
        """Return the folder of a step, of a link's target, or at a path; loading it checks whether it is valid."""
        if _STEP.fullmatch(name) and self._step_folder(int(name)).is_dir():
            return self._step_folder(int(name))
        entry = self.root / name
        if entry.is_symlink():
            target = self._existing_or_replaced(self.root / os.readlink(entry))
            return target if target.is_dir() else None
        path = Path(name).parent if Path(name).is_file() else Path(name)
        return next((folder for folder in (entry, path) if (folder / MANIFEST).is_file()), None)

    def _step_folder(self, step: int) -> Path:
        return self._existing_or_replaced(self.root / f"step-{step:08d}")

    def _existing_or_replaced(self, folder: Path) -> Path:
        """Return the folder, or the one it replaces if a process was killed between the two renames of `_replace`."""
        if folder.exists():
            return folder
        replaced = sorted(path for path in folder.parent.glob(f"{folder.name}.old-*") if _LEFTOVER.fullmatch(path.name))
        return replaced[0] if replaced else folder

    def _is_named(self, path: Path) -> bool:
        """Whether this is a checkpoint with a name such as `best`: a link, or a folder other than a step's."""
        unnamed = _LEFTOVER.fullmatch(path.name) or STEP_FOLDER.fullmatch(path.name)
        return not unnamed and (path / MANIFEST).is_file()


def _temporary_name(final: Path, kind: str) -> Path:
    """Return a unique path in the same folder, for an unfinished (`tmp`) or a replaced (`old`) entry."""
    return final.with_name(f"{final.name}.{kind}-{os.getpid()}x{secrets.token_hex(4)}")


def _replace(temporary: Path, final: Path) -> None:
    """Rename `temporary` to `final`; unless both are links, an existing `final` is renamed first, then deleted."""
    replaced = _temporary_name(final, "old")
    if os.path.lexists(final) and not (final.is_symlink() and temporary.is_symlink()):
        os.rename(final, replaced)
    os.replace(temporary, final)
    sync(final.parent)
    remove(replaced)


@contextmanager
def _wrap_os_error(message: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointSaveError(f"{message}: {error}") from error


def _write_error_message(error: Exception, final: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> str:
    sizes = {tensor.data_ptr(): tensor.nbytes for by_name in tensors.values() for tensor in by_name.values()}
    message = f"cannot write {final}: {error}; it needs {sum(sizes.values()):,} bytes"
    with suppress(OSError):  # the folder may be gone or unreadable
        parent = next(folder for folder in final.parents if folder.exists())
        message += f", and {parent} has {shutil.disk_usage(parent).free:,} free"
    return message
