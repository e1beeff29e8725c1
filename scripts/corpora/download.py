"""Downloads corpus files with resume, checksums and atomic writes; reads archives member by member.

It needs only the standard library, so that corpora can be fetched before the package is installed.

Archives are never unpacked to disk: the members that a corpus needs are read into memory by name, up to a size limit,
so that a path such as `../x`, a link or a decompression bomb does no harm.
"""

from __future__ import annotations

import argparse
import errno
import gzip
import hashlib
import http.client
import os
import re
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5
_PERMANENT_ERRORS = (400, 401, 403, 404, 405, 410, 451)  # HTTP status codes that a retry does not change
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_MAX_FILE_BYTES = 1 << 30


class DownloadError(Exception):
    """A corpus cannot be obtained; the message says what to do instead."""


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
        check_official(path, remote.sha256, "; delete or move it, and run this again")
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    digest = _download(remote, part, path, pause, timeout)
    if resumed and remote.sha256 not in (None, digest):
        note(f"{path.name}: the partial download from before does not match; starting over")
        part.unlink()
        digest = _download(remote, part, path, pause, timeout)
    if not remote.sha256:
        note(f"warning: {path.name}: no checksum to compare with; its sha256 is {digest}")
    elif digest != remote.sha256:
        part.unlink()
        raise DownloadError(
            f"{remote.url}: the file has sha256 {digest}, expected {remote.sha256}; nothing was kept. "
            "It was damaged in transit or changed on the server: try again, or get it from a mirror"
        )
    os.replace(part, path)
    return True


def check_official(path: Path, sha256: str | None, remedy: str = "") -> None:
    """Raises a DownloadError, which ends in `remedy`, if a file's sha256 is known and another."""
    digest = sha256_of(path)
    if sha256 not in (None, digest):
        raise DownloadError(f"{path}: not the official file (sha256 {digest}, expected {sha256}){remedy}")


def _download(remote: Remote, part: Path, path: Path, pause: Callable[[float], None], timeout: float) -> str:
    """Downloads to `part`, in several attempts if need be; returns its sha256."""
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            wait = 2.0 ** (attempt - 1)
            note(f"{path.name}: {reason}; retrying in {wait:.0f} s")
            pause(wait)
        try:
            _download_once(remote, part, timeout)
            return sha256_of(part)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code in _PERMANENT_ERRORS:
                raise DownloadError(f"{remote.url}: {reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            reason = str(error) or type(error).__name__
        except DownloadError:
            part.unlink(missing_ok=True)
            raise
    raise DownloadError(
        f"{remote.url}: {reason} ({_ATTEMPTS} attempts). Without a network: download this URL on another "
        f"machine, save the file as {path}, and run this again (or pass a local copy with --from DIR)"
    )


def _download_once(remote: Remote, part: Path, timeout: float) -> None:
    """Downloads to `part`, from where it ends.

    Raises:
        DownloadError: this is not the file, so that `part` is of no use.
        OSError: the transfer ended early, and a retry can resume it.
    """
    size = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(remote.url, headers={"User-Agent": "seq2seq", "Accept-Encoding": "identity"})
    if size:
        request.add_header("Range", f"bytes={size}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not size:
            raise
        if error.headers.get("Content-Range") == f"bytes */{size}":
            return  # nothing is left to send
        part.unlink()
        raise ConnectionError("the partial download from before does not match") from error
    with response:
        if response.status != 206:
            size = 0  # the server cannot resume and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            part.unlink()
            raise ConnectionError("the server resumed at a different offset than requested")
        length = response.headers.get("Content-Length", "")
        total = size + int(length) if length.isdigit() else 0
        if total > remote.max_bytes:
            raise DownloadError(f"{remote.url}: {total} bytes, more than the {remote.max_bytes} that are plausible")
        size = _save(response, part, size, remote)
    if not size:
        part.unlink()
        raise ConnectionError("the server sent nothing")
    if size < total:
        raise ConnectionError(f"the connection ended at {size} of {total} bytes")


def _save(response: IO[bytes], part: Path, size: int, remote: Remote) -> int:
    """Appends a response to the first `size` bytes of `part`; returns the new size."""
    with part.open("ab" if size else "wb") as file:
        while chunk := response.read(_CHUNK):
            if not size and not chunk.startswith(_GZIP_MAGIC):
                page = "the server sent a web page instead of the file (a login or error page, or one of a proxy)"
                found = page if chunk.lstrip()[:1] == b"<" else f"not a gzip file (it starts with {chunk[:4]!r})"
                raise DownloadError(f"{remote.url}: {found}; nothing was kept")
            size += len(chunk)
            if size > remote.max_bytes:
                raise DownloadError(f"{remote.url}: more than the {remote.max_bytes} bytes that are plausible")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size


# Archives


class _LimitedGzipFile(gzip.GzipFile):
    """A gzip file that is read up to a limit, in bytes of its content: guards against decompression bombs."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path)
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        """Reads like any gzip file.

        Raises:
            DownloadError: the total exceeds the limit.
        """
        data = super().read(size)
        if self.tell() > self._limit:
            raise DownloadError(f"{self.name}: unpacks to more than {self._limit} bytes; refused")
        return data


def read_members(
    archive: Path, wanted: re.Pattern[str], *, max_bytes: int, max_member_bytes: int
) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yields the match of its name and the content of each file in a .tar.gz whose whole name matches; skips the rest.

    Raises:
        DownloadError: a wanted member is a link or a device or is too large, or the archive exceeds `max_bytes`
            or is damaged.
    """
    try:
        with _LimitedGzipFile(archive, max_bytes) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for member in tar:
                match = wanted.fullmatch(member.name)
                if not match:
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise DownloadError(f"{archive}: {member.name} is not a plain file (a link or a device); refused")
                if member.size > max_member_bytes:
                    raise DownloadError(
                        f"{archive}: {member.name} has {member.size} bytes, more than {max_member_bytes}; refused"
                    )
                yield match, content.read()
            while unzipped.read(_CHUNK):  # gzip verifies its checksum at the end
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(f"{archive}: damaged archive ({error}); delete it and download it again") from error


def decode(content: bytes, name: str) -> str:
    """Decodes the content of a file.

    Raises:
        DownloadError: it is not UTF-8; the message has the file's name.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DownloadError(f"{name}: not UTF-8 ({error})") from error


# Commands


def archive_options(
    arguments: list[str] | None, *, corpus: str, output: Path, url: str, local: str
) -> argparse.Namespace:
    """Parses the command line of a corpus that is one archive: output, folder, url and sha256."""
    parser = argparse.ArgumentParser(description=f"Fetch and convert {corpus}.")
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--from", dest="folder", type=Path, help=local)
    parser.add_argument("--url", default=url, help="another URL of the archive")
    parser.add_argument("--sha256", help="expected sha256 of the archive")
    return parser.parse_args(arguments)


def convert_archive(
    options: argparse.Namespace, name: str, *, max_bytes: int, results: Iterable[str], convert: Callable[[Path], None]
) -> None:
    """Converts an archive, downloaded as `name`, or a local folder; does nothing if all results exist.

    Args:
        options: From `archive_options`.
        name: File name of the archive; it is deleted after the conversion.
        max_bytes: Largest plausible size of the archive.
        results: Names of the files that `convert` writes to the output folder.
        convert: Converts an archive or a folder with its content.
    """
    archive = options.output / name
    if all((options.output / result).exists() for result in results):
        note(f"{options.output}: already exists")
    elif options.folder is not None:
        convert(options.folder)
    else:
        fetch(Remote(options.url, options.sha256, max_bytes), archive)
        convert(archive)
        archive.unlink()


def run(main: Callable[[], None]) -> int:
    """Runs a script and returns its exit code: 2, with an error message, if the corpus cannot be obtained."""
    try:
        main()
    except (DownloadError, OSError) as error:
        note(f"error: {error}")
        return 2
    return 0
