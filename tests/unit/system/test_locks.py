"""Locks between processes; `test_folder.py` and `test_atomic_folder.py` test what holds them."""

import errno
import os
from pathlib import Path

import pytest

from seq2seq.system.locks import try_lock


def test_readers_share_a_lock_that_a_writer_does_not_get(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as one, path.open("rb") as other, path.open("r+b") as writer:
        assert try_lock(one, shared=True) is True
        assert try_lock(other, shared=True) is True
        assert try_lock(writer) is False
        one.close()
        other.close()
        assert try_lock(writer) is True
        with path.open("rb") as late:
            assert try_lock(late, shared=True) is False


def test_a_file_system_without_locks_is_told_from_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    with (tmp_path / "lock").open("wb") as file:
        for number in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF):
            refuse(number)
            assert try_lock(file) is None
        refuse(errno.EIO)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            try_lock(file)
