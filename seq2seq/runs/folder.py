"""The run folder: its paths, its lock, and atomic writes of small files."""

import errno
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.runs.earlier_run import EarlierRun
from seq2seq.system.files import write_bytes
from seq2seq.system.locks import try_lock

logger = logging.getLogger("seq2seq")

_LOCK, _LOCK_BY_NAME = "run.lock", "run.lock.holder"
# Temporary files of a process that was killed before renaming them, and the probe of `RunFolder.create`.
_LEFTOVER = re.compile(r"\..+\.\d+")
_SINKS = ("/dev/null", "/dev/full")  # devices that do not store what is written to them
_SETTLE_SECONDS = 5.0  # how long to wait for another process that puts an earlier run back


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
        self.profile = path / "profile"
        self.results = path / "results.json"
        self.earlier = EarlierRun(path, frozenset((_LOCK, _LOCK_BY_NAME, self.log.name)))

    def create(self) -> None:
        """Creates the folder and checks that it is writable.

        Raises:
            UserError: If it is not, or if it holds a run without its configuration.
        """
        refuse_external_links(self.path)
        probe = self.path / f".probe.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink(missing_ok=True)  # a process with the lock may have deleted it
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror}; choose another folder with output_root=DIR"
            ) from error
        self._require_config()

    def inspect(self) -> None:
        """Checks that a run can start or resume here, without writing anything.

        Raises:
            UserError: If another process holds the lock, or the folder holds a run without its configuration.
        """
        if not self.path.is_dir():
            return
        refuse_external_links(self.path)
        self._require_config()
        with suppress(FileNotFoundError), (self.path / _LOCK).open("rb", buffering=0) as file:
            if try_lock(file, shared=True) is False:
                raise UserError(self._in_use_message(_read_holder(file)))

    def _require_config(self) -> None:
        if self.checkpoints.is_dir() and any(self.checkpoints.iterdir()) and self.lacks_config():
            raise UserError(
                f"{self.path} has checkpoints but no config.yaml, which describes their model; restore it, choose "
                "another name (name=NAME), or delete the folder yourself"
            )

    def lacks_config(self) -> bool:
        """Whether the configuration is missing or empty; an empty one would silently stand for all defaults."""
        return not self.config.is_file() or self.config.stat().st_size == 0

    def holds_run(self) -> bool:
        """Whether a run has got as far as a checkpoint here; only then is there something that must not be lost."""
        if self.results.exists():
            return True
        try:
            entries = list(self.checkpoints.iterdir())
        except OSError:  # unreadable ones still count as a run
            return self.checkpoints.exists()
        return any(entry.is_dir() and entry.name != "failed" and ".tmp-" not in entry.name for entry in entries)

    def require_replaceable(self) -> None:
        """Checks that `overwrite=true` may replace what is in the folder.

        Raises:
            UserError: If the folder is not empty and not a run folder.
        """
        if not self.path.is_dir() or self.config.exists():
            return
        entries = [e for e in self.path.iterdir() if e.name not in (_LOCK, _LOCK_BY_NAME, self.log.name)]
        if entries:
            raise UserError(
                f"overwrite=true: {self.path} is not a run folder (it has {entries[0].name} and no config.yaml); "
                "delete it yourself or choose another name"
            )

    def settle(self) -> None:
        """Puts an earlier run back that a killed process had set aside; see `EarlierRun`.

        Raises:
            UserError: If another process holds the lock: it may be about to replace the run.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self.earlier.is_unsettled(self.holds_run):
            try:
                with self.lock():
                    return
            except UserError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def restore_earlier(self) -> None:
        """Puts an earlier run back unless the new one has a checkpoint; call it while holding the lock."""
        if self.earlier.settle(self.holds_run):
            logger.info("the earlier run is back in %s", self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder against other processes; the operating system releases the lock when this process ends.

        Raises:
            UserError: If another process holds it.
        """
        with (self.path / _LOCK).open("a+b", buffering=0) as file:
            locked = try_lock(file)
            if locked is False:
                raise UserError(self._in_use_message(_read_holder(file)))
            with nullcontext() if locked else self._lock_by_name():
                for folder in (self.path, self.tokenizer, self.generations, self.path / "tensorboard"):
                    for leftover in folder.glob(".*"):
                        if _LEFTOVER.fullmatch(leftover.name):
                            leftover.unlink(missing_ok=True)  # a starting process may have deleted its probe
                _write_holder(file)
                self.restore_earlier()
                yield

    @contextmanager
    def _lock_by_name(self) -> Iterator[None]:
        """The lock on a file system without locks: a file that only one process can create.

        It outlives a killed process. On the same machine this is detected; on another one the user must delete it.
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
                        f"{self._in_use_message(holder)}. This file system has no locks: if that process was killed, "
                        f"delete {path}"
                    ) from error
                path.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _in_use_message(self, holder: str) -> str:
        holder = holder or "another process"
        if _has_ended(holder):
            holder = f"a leftover child of {holder}, which has ended"
        return f"the run folder {self.path} is in use by {holder}; wait for it, stop it, or choose another name"

    def read_results(self) -> dict[str, Any] | None:
        """Reads the final scores; None if the run is not complete, or if the file is damaged and must be recomputed."""
        try:
            results = json.loads(self.results.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            results = None
        if not _is_valid_results(results):
            logger.warning("%s is damaged: the run is treated as not yet scored", self.results)
            return None
        return dict(results)


def _write_holder(file: FileIO) -> None:
    """Writes who holds a lock, for messages only, so that a full disk is ignored."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())


def _read_holder(file: FileIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _has_ended(holder: str) -> bool:
    """Whether a holder, as written by `_write_holder`, was a process on this machine that no longer exists."""
    import psutil

    match = re.match(r"process (\d{1,9}) on (\S+) since ", holder)
    return match is not None and match[2] == socket.gethostname() and not psutil.pid_exists(int(match[1]))


def _is_valid_results(results: Any) -> bool:
    """Whether a value has the structure of `results.json`; only checks the parts that are read back."""
    try:
        entries = [entry for scores in results["test"].values() for entry in scores.values()]
        return _is_number(results["objective"].get("value")) and all(
            _is_number(entry.get("score")) and isinstance(entry.get("signature"), str) for entry in entries
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def require_run(path: str, *, key: str = "run") -> RunFolder:
    """Returns the folder of an existing run, given by the user as `key`.

    Raises:
        UserError: If the path is not a run folder.
    """
    folder = RunFolder(Path(path))
    folder.settle()
    if folder.lacks_config():
        reason = "has no config.yaml, or an empty one" if folder.path.is_dir() else "does not exist"
        raise UserError(f"{key}={path} is not a run folder: it {reason}; give the folder that `seq2seq train` wrote")
    refuse_external_links(folder.path)
    return folder


def refuse_external_links(folder: Path) -> None:
    """Prevents reads and writes outside a run folder through its symbolic links; the folder may be untrusted.

    Raises:
        UserError: If a link in it, at any depth, points outside the folder.
    """
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if os.path.realpath(path) in _SINKS:
                continue
            if path.is_symlink() and os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise UserError(
                    f"{path} is a link that points outside the run folder, to {os.readlink(path)}: it is neither read "
                    "nor written; replace the link by its target, or move the whole run folder and link to that"
                )


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically: readers see the whole file or none of it."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON atomically; non-finite numbers become null."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
