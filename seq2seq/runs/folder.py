"""The run folder: what lies where, who may write there, and small files written whole or not at all."""

import errno
import fcntl
import json
import logging
import math
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes

LOGGER = logging.getLogger("seq2seq")

# What flock says on a network file system that has no locks, or was mounted without (Lustre, some NFS).
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
_LOCK, _LOCK_BY_NAME = "run.lock", "run.lock.holder"
# A small file of a process that was killed before it renamed it, and the probe of `RunFolder.create`.
_LEFTOVER = re.compile(r"\..+\.\d+")


class RunFolder:
    """The paths of one run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.provenance = path / "provenance.json"
        self.log = path / "train.log"
        self.tokenizer = path / "tokenizer"
        self.checkpoints = path / "checkpoints"
        self.generations = path / "generations"
        self.results = path / "results.json"

    def create(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
            UserError: If it cannot, or if what is there is a run without its configuration.
        """
        refuse_links_out(self.path)
        probe = self.path / f".probe.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink(missing_ok=True)  # a process with the lock may have cleared it away
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror}; choose another place with output_root=DIR"
            ) from error
        self._require_config()

    def inspect(self) -> None:
        """Looks whether a run can start or go on here, without writing anything.

        Raises:
            UserError: If another process is at work here, or what is there is a run without its configuration.
        """
        if not self.path.is_dir():
            return
        refuse_links_out(self.path)
        self._require_config()
        with suppress(FileNotFoundError), (self.path / _LOCK).open("rb", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(self._in_use(_read_holder(file))) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise

    def _require_config(self) -> None:
        if self.checkpoints.is_dir() and any(self.checkpoints.iterdir()) and self.lacks_config():
            raise UserError(
                f"{self.path} has checkpoints but no config.yaml, which says what they are of; restore it, choose "
                "another name (name=NAME), or remove the folder yourself"
            )

    def lacks_config(self) -> bool:
        """Whether the configuration is not there, or empty: all defaults would not be what the run was made with."""
        return not self.config.is_file() or self.config.stat().st_size == 0

    def entries_to_clear(self) -> list[Path]:
        """What starting over would remove.

        Raises:
            UserError: If what is there is no run.
        """
        if not self.path.is_dir():
            return []
        entries = [e for e in self.path.iterdir() if e.name not in (_LOCK, _LOCK_BY_NAME, self.log.name)]
        if entries and not self.config.exists():
            raise UserError(
                f"overwrite=true: {self.path} is no run folder (it has {entries[0].name} and no config.yaml); "
                "remove it yourself or choose another name"
            )
        return entries

    def clear(self) -> None:
        """Removes a run from the folder; call it under the lock.

        Raises:
            UserError: If what is there is no run.
        """
        # Cut short, this leaves a run without scores, then one without checkpoints; the mark of a run goes last.
        order = {self.results: 0, self.checkpoints: 1, self.config: 3}
        for entry in sorted(self.entries_to_clear(), key=lambda entry: order.get(entry, 2)):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing here; the operating system frees it when this one ends, however it does.

        Raises:
            UserError: If another process holds it.
        """
        with (self.path / _LOCK).open("a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked: AbstractContextManager[None] = nullcontext()
            except BlockingIOError as error:
                raise UserError(self._in_use(_read_holder(file))) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                locked = self._lock_by_name()
            with locked:
                for folder in (self.path, self.tokenizer, self.generations, self.path / "tensorboard"):
                    for leftover in folder.glob(".*"):
                        if _LEFTOVER.fullmatch(leftover.name):
                            leftover.unlink(missing_ok=True)  # the probe of a process that is just starting
                _write_holder(file)
                yield

    @contextmanager
    def _lock_by_name(self) -> Iterator[None]:
        """The lock where the file system has none: a file that only one process can make.

        It outlives a process that is killed. On the same machine that is seen; of other machines the user knows.
        """
        path = self.path / _LOCK_BY_NAME
        while True:
            try:
                with path.open("xb", buffering=0) as file:
                    _write_holder(file)
                break
            except FileExistsError as error:
                with path.open("rb", buffering=0) as other:
                    holder = _read_holder(other)
                if not _has_ended(holder):
                    raise UserError(
                        f"{self._in_use(holder)}. This file system has no locks: if that process was killed, "
                        f"delete {path}"
                    ) from error
                path.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _in_use(self, holder: str) -> str:
        holder = holder or "another process"
        if _has_ended(holder):
            holder = f"a process that is left of {holder}, which has ended"
        return f"the run folder {self.path} is in use by {holder}; wait for it, stop it, or choose another name"

    def read_results(self) -> dict[str, Any] | None:
        """The final scores; None while the run is not complete, or where they are damaged: they are computed again."""
        try:
            results = json.loads(self.results.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            results = None
        if not _are_results(results):
            LOGGER.warning("%s is damaged: the run counts as not yet scored", self.results)
            return None
        return dict(results)


def _write_holder(file: FileIO) -> None:
    """Says who holds a lock; only words, so a full disk is no obstacle."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())


def _read_holder(file: FileIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _has_ended(holder: str) -> bool:
    """Whether a holder, as written by `_write_holder`, was a process of this machine that is no more."""
    match = re.match(r"process (\d+) on (\S+) since ", holder)
    if match is None or match[2] != socket.gethostname():
        return False
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's
        return False
    return False


def _are_results(results: Any) -> bool:
    """Whether a value has the shape of `results.json` as far as it is read again."""
    if not isinstance(results, dict) or not isinstance(results.get("objective"), dict):
        return False
    tests = results.get("test")
    if not isinstance(tests, dict) or not all(isinstance(scores, dict) for scores in tests.values()):
        return False
    entries = [entry for scores in tests.values() for entry in scores.values()]
    return _is_number(results["objective"].get("value")) and all(
        isinstance(entry, dict) and _is_number(entry.get("score")) and isinstance(entry.get("signature"), str)
        for entry in entries
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def require_run(path: str, *, key: str = "run") -> RunFolder:
    """The folder of an existing run, which the user named by a key.

    Raises:
        UserError: If the path is no run folder.
    """
    folder = RunFolder(Path(path))
    if folder.lacks_config():
        what = "has no config.yaml, or an empty one" if folder.path.is_dir() else "does not exist"
        raise UserError(f"{key}={path} is no run folder: it {what}; give the folder that `seq2seq train` wrote")
    refuse_links_out(folder.path)
    return folder


def refuse_links_out(folder: Path) -> None:
    """Keeps a run folder that came from elsewhere from having files outside it read or written.

    Raises:
        UserError: If a link in it, at any depth, leads out of it.
    """
    inside = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            if path.is_char_device():  # /dev/null keeps nothing and holds nothing
                continue
            if path.is_symlink() and os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                raise UserError(
                    f"{path} is a link that leads out of the run folder, to {os.readlink(path)}: nothing there is read "
                    "or written; put what it stands for in its place, or move the whole folder and link that"
                )


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file under a temporary name and renames it, so that readers see all of it or none."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON, as ``write_text`` does; a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command_line() -> str:
    """The command that this process runs, as a user would type it.

    Under Hydra ``sys.argv[0]`` is ``seq2seq COMMAND``, see ``cli.hydra_app``.
    """
    import shlex

    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".rstrip()
