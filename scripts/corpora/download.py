"""Downloads corpus files with resume, checksums and atomic writes; reads archives member by member.

Archives are never unpacked to disk: the members that a corpus needs are read into memory by name, up to a size limit,
so that a path such as `../x`, a link or a decompression bomb does no harm.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

_CHUNK = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5
_PERMANENT_ERRORS = (400, 401, 403, 404, 405, 410, 451)  # HTTP status codes that a retry does not change
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_MAX_FILE_BYTES = 1 << 30


class DownloadError(Exception):
    """A corpus cannot be obtained; the message says what to do instead."""


class _IncompleteError(Exception):
    """The transfer ended early; a retry can resume it."""


@dataclass(frozen=True)
class Remote:
    """A gzipped file at a URL; `sha256` is None if its publisher gives none."""

    url: str
    sha256: str | None
    max_bytes: int = _MAX_FILE_BYTES


def note(text: str) -> None:
    """Prints a message to standard error."""
    print(text, file=sys.stderr)


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    remote: Remote, path: Path, *, pause: Callable[[float], None] = time.sleep, timeout: float = _TIMEOUT_SECONDS
) -> bool:
    """Downloads a file unless it exists; returns whether it was downloaded.

    After a failure, the received part stays in `<name>.part`, and the next attempt resumes from it.

    Raises:
        DownloadError: the server refuses, cannot be reached, or sends something other than the file.
    """
    if path.exists():
        _check_present(remote, path)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    _download(remote, part, path, pause, timeout)
    digest = sha256_of(part)
    if remote.sha256 and digest != remote.sha256 and resumed:
        note(f"{path.name}: the partial download from before does not match; starting over")
        part.unlink()
        _download(remote, part, path, pause, timeout)
        digest = sha256_of(part)
    if remote.sha256 and digest != remote.sha256:
        part.unlink()
        raise DownloadError(
            f"{remote.url}: the file has sha256 {digest}, expected {remote.sha256}; nothing was kept. "
            "It was damaged in transit or changed on the server: try again, or get it from a mirror"
        )
    if not remote.sha256:
        note(f"warning: {path.name}: no checksum to compare with; its sha256 is {digest}")
    os.replace(part, path)
    return True


def _check_present(remote: Remote, path: Path) -> None:
    if remote.sha256 is None:
        return
    digest = sha256_of(path)
    if digest != remote.sha256:
        raise DownloadError(
            f"{path}: not the official file (sha256 {digest}, expected {remote.sha256}); "
            "delete or move it, and run this again"
        )


def _download(remote: Remote, part: Path, path: Path, pause: Callable[[float], None], timeout: float) -> None:
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            wait = 2.0 ** (attempt - 1)
            note(f"{path.name}: {reason}; retrying in {wait:.0f} s")
            pause(wait)
        try:
            _download_once(remote, part, timeout)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _PERMANENT_ERRORS:
                raise DownloadError(f"{remote.url}: the server answered {error.code} {error.reason}") from error
            reason = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException, _IncompleteError) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            reason = str(error) or type(error).__name__
    raise DownloadError(
        f"{remote.url}: {reason} ({_ATTEMPTS} attempts). Without a network: download this URL on another "
        f"machine, save the file as {path}, and run this again (or pass a local copy with --from DIR)"
    )


def _download_once(remote: Remote, part: Path, timeout: float) -> None:
    size = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(remote.url, headers={"User-Agent": "seq2seq", "Accept-Encoding": "identity"})
    if size:
        request.add_header("Range", f"bytes={size}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and size:  # nothing left to send, or the part belongs to another file
            if _is_complete(error.headers.get("Content-Range", ""), size):
                return
            part.unlink()
            raise _IncompleteError("the partial download from before does not match") from error
        raise
    with response:
        if response.status != 206:
            size = 0  # the server cannot resume and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            part.unlink()
            raise _IncompleteError("the server resumed at a different offset than requested")
        length = response.headers.get("Content-Length", "")
        total = size + int(length) if length.isdigit() else None
        if total is not None and total > remote.max_bytes:
            raise DownloadError(f"{remote.url}: {total} bytes, more than the {remote.max_bytes} that are plausible")
        _save(response, part, size, remote)
    if total is not None and part.stat().st_size < total:
        raise _IncompleteError(f"the connection ended at {part.stat().st_size} of {total} bytes")


def _is_complete(content_range: str, size: int) -> bool:
    """Whether the Content-Range of a 416 response, such as `bytes */12345`, gives the size of the part."""
    return content_range == f"bytes */{size}"


def _save(response: IO[bytes], part: Path, size: int, remote: Remote) -> None:
    with part.open("ab" if size else "wb") as file:
        first = not size
        while True:
            chunk = response.read(_CHUNK)
            if not chunk:
                break
            if first and not chunk.startswith(_GZIP_MAGIC):
                file.close()
                part.unlink()
                raise DownloadError(_not_gzip(remote.url, chunk))
            first = False
            size += len(chunk)
            if size > remote.max_bytes:
                file.close()
                part.unlink()
                raise DownloadError(f"{remote.url}: more than the {remote.max_bytes} bytes that are plausible")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if not size:
        part.unlink()
        raise _IncompleteError("the server sent nothing")


def _not_gzip(where: str, start: bytes) -> str:
    if start.lstrip()[:1] == b"<":
        page = "the server sent a web page instead of the file (a login or error page, or one of a proxy)"
        return f"{where}: {page}; nothing was kept"
    return f"{where}: not a gzip file (it starts with {start[:4]!r}); nothing was kept"


# Archives


class _LimitedReader:
    """Reads from a stream up to a limit: guards against decompression bombs."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, limit: int, where: str) -> None:
        self._stream = stream
        self._remaining = limit
        self._limit = limit
        self._where = where

    def read(self, size: int = -1) -> bytes:
        """Reads like the stream.

        Raises:
            DownloadError: the total exceeds the limit.
        """
        data = self._stream.read(size)
        self._remaining -= len(data)
        if self._remaining < 0:
            raise DownloadError(f"{self._where}: unpacks to more than {self._limit} bytes; refused")
        return data


def read_members(
    archive: Path, wanted: re.Pattern[str], *, max_bytes: int, max_member_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of each file in a .tar.gz whose whole name matches; skips the rest.

    Raises:
        DownloadError: a wanted member is a link or a device or is too large, or the archive exceeds `max_bytes`
            or is damaged.
    """
    try:
        with gzip.open(archive, "rb") as unzipped:
            limited = _LimitedReader(unzipped, max_bytes, str(archive))
            with tarfile.open(fileobj=limited, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    if not wanted.fullmatch(member.name):
                        continue
                    yield member.name, _member_bytes(tar, member, archive, max_member_bytes)
            while limited.read(_CHUNK):  # gzip verifies its checksum at the end
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(f"{archive}: damaged archive ({error}); delete it and download it again") from error


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, limit: int) -> bytes:
    if not member.isreg():
        raise DownloadError(f"{archive}: {member.name} is not a plain file (a link or a device); refused")
    if member.size > limit:
        raise DownloadError(f"{archive}: {member.name} has {member.size} bytes, more than {limit}; refused")
    content = tar.extractfile(member)
    if content is None:
        raise DownloadError(f"{archive}: {member.name} cannot be read")
    data = content.read()
    if len(data) != member.size:
        raise DownloadError(f"{archive}: {member.name} is truncated; delete the archive and download it again")
    return data


# Results


@contextmanager
def all_or_none(paths: list[Path]) -> Iterator[list[Path]]:
    """Yields a temporary path per file; renames all of them to `paths` if the block succeeds."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        for source, target in zip(temporary, paths, strict=True):
            os.replace(source, target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextmanager
def gzip_text(path: Path) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes text to a new gzip file, whose bytes depend on the text alone."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as file:
        yield lambda text: _write_text(file, text)


def _write_text(file: gzip.GzipFile, text: str) -> None:
    file.write(text.encode("utf-8"))


def copy_checked(source: Path, target: Path, sha256: str | None) -> None:
    """Copies a local file after checking its sha256."""
    if not source.is_file():
        raise DownloadError(f"{source}: no such file")
    digest = sha256_of(source)
    if sha256 and digest != sha256:
        raise DownloadError(f"{source}: not the official file (sha256 {digest}, expected {sha256})")
    with all_or_none([target]) as (temporary,):
        shutil.copyfile(source, temporary)


def run(main: Callable[[], None]) -> int:
    """Runs a script and returns its exit code: 2, with an error message, if the corpus cannot be obtained."""
    try:
        main()
    except (DownloadError, OSError) as error:
        note(f"error: {error}")
        return 2
    return 0
