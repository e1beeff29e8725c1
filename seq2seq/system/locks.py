"""Locks on open files between processes; the kernel releases a lock once no process has the file open.

Not `filelock`, which gives up its lock when a leftover child of a killed process still writes, needs write permission
to find out whether somebody holds a lock, and fails on file systems without locks (verified with filelock 4.2.11).
"""

import errno
import fcntl
from typing import IO

# Errors of flock on a network file system without locks, or mounted without them (Lustre, some NFS).
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF)


def try_lock(file: IO[bytes], *, shared: bool = False, wait: bool = False) -> bool | None:
    """Locks an open file until it is closed here and in all child processes.

    Args:
        file: the open file; its content is not touched.
        shared: whether others may hold the lock too, if theirs is shared.
        wait: waits for a lock that another process holds.

    Returns:
        Whether the file is locked now: False if another process holds the lock, None if this file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True
