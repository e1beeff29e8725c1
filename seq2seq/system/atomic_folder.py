"""Cache folders that appear complete or not at all, even if several processes build them or one is killed."""

import errno
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from seq2seq.errors import TrainingError, UserError
from seq2seq.system.files import sync
from seq2seq.system.locks import try_lock

_PARTIAL = ".partial"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: above a limit on the file size


def build_once(
    folder: Path,
    build: Callable[[Path], None],
    *,
    is_complete: Callable[[Path], bool],
    log: Callable[[str], None] | None = None,
) -> None:
    """Builds `folder` unless it exists and is complete.

    The folder is built under a temporary name beside it and renamed. A lock lets one process build while others
    wait for the result; the kernel releases the lock of a killed process, and the next builder removes its
    leftovers. On a file system without locks two processes may build the same folder; the second to finish
    discards its own.

    Args:
        folder: the folder to build.
        build: fills an empty folder.
        is_complete: whether a folder has the expected content; a stale or damaged one is replaced.
        log: receives a message for the user if another process is building the folder.

    Raises:
        UserError: the parent folder, below `cache_root`, is not writable.
        TrainingError: the disk is full.
    """
    if is_complete(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(_lock_path(folder), "wb") as file:
            locked = try_lock(file)
            if locked is False:
                if log is not None:
                    log(f"Another process is preparing {folder}; waiting for it.")
                locked = try_lock(file, wait=True)
            if is_complete(folder):
                return
            if locked:
                _remove_leftovers(folder)
            _build(folder, build, is_complete)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise TrainingError(
                f"{folder.parent}: the disk is full ({error.strerror}). Free some space, or set "
                "cache_root to a folder on another disk. Complete cache entries are unchanged."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"cache_root: {folder.parent} cannot be written to ({error.strerror}). "
                "Set cache_root to a writable folder."
            ) from error
        raise


def _build(folder: Path, build: Callable[[Path], None], is_complete: Callable[[Path], bool]) -> None:
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    partial.mkdir()
    try:
        build(partial)
        if folder.exists() and not is_complete(folder):
            shutil.rmtree(folder)
        try:
            partial.rename(folder)
        except OSError:
            if not is_complete(folder):  # otherwise another process was faster, and its result is as good
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _remove_leftovers(locked: Path) -> None:
    """Removes unfinished folders of processes that are gone: those of `locked`, and those whose lock is free."""
    for partial in locked.parent.glob(f"*{_PARTIAL}"):
        folder = partial.with_name(partial.name.removesuffix(_PARTIAL).rpartition(".")[0])
        with open(_lock_path(folder), "wb") as file:
            if folder == locked or try_lock(file):
                shutil.rmtree(partial, ignore_errors=True)
