"""Folders that appear complete or not at all, even if several processes make them or one is killed."""

import errno
import fcntl
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import TrainingError, UserError
from seq2seq.system.files import sync_folder

_PARTIAL = ".partial"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit on the size of a file
_NO_LOCKS = (
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EINVAL,
    errno.EBADF,
)  # of some network file systems


def build_once(
    folder: Path,
    build: Callable[[Path], None],
    *,
    complete: Callable[[Path], bool],
    log: Callable[[str], None] | None = None,
) -> None:
    """Makes sure that `folder` is there and complete.

    It is built under another name beside it and renamed. A lock lets one process build while others wait for
    the result; the kernel frees the lock of a killed one, and the next builder removes what that left behind.
    On a file system without locks two may build the same; the second to finish finds the first one's and
    drops its own.

    Args:
        folder: what to make.
        build: fills an empty folder.
        complete: whether a folder is what is wanted; one that is not is replaced.
        log: takes a line for the user when another process has to be waited for.

    Raises:
        UserError: the place cannot be written to.
        TrainingError: the disk is full.
    """
    if complete(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, log) as locked:
            if complete(folder):
                return
            if locked:
                _remove_leftovers(folder.parent, folder.name)
            _build(folder, build, complete)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise TrainingError(
                f"{folder.parent}: the disk is full ({error.strerror}). Free some, or set cache_root to "
                "a folder on another disk. What was there before is unharmed."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"cache_root: {folder.parent} cannot be written to ({error.strerror}). "
                "Set cache_root to a folder that can."
            ) from error
        raise


def _build(folder: Path, build: Callable[[Path], None], complete: Callable[[Path], bool]) -> None:
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    partial.mkdir()
    try:
        build(partial)
        if folder.exists() and not complete(folder):
            shutil.rmtree(folder)
        try:
            partial.rename(folder)
        except OSError:
            if not complete(folder):  # otherwise another process was faster, and its work is as good
                raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(folder: Path, log: Callable[[str], None] | None) -> Iterator[bool]:
    """Holds the lock of a folder; yields whether locks work here."""
    with open(_lock_path(folder), "wb") as file:
        try:
            if not _take(file.fileno(), wait=False):
                if log is not None:
                    log(f"Another process is preparing {folder}; waiting for it.")
                _take(file.fileno(), wait=True)
            locked = True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            locked = False
        yield locked


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _take(handle: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_leftovers(parent: Path, held: str) -> None:
    """Removes unfinished folders whose builder is gone: those whose lock is free, or held by us."""
    for partial in parent.glob(f"*{_PARTIAL}"):
        name = partial.name.removesuffix(_PARTIAL).rpartition(".")[0]
        if name == held:
            shutil.rmtree(partial, ignore_errors=True)
            continue
        with open(_lock_path(parent / name), "wb") as file:
            if _take(file.fileno(), wait=False):
                shutil.rmtree(partial, ignore_errors=True)
