"""sha256 fingerprints of files, cached so that an unchanged file is not hashed again."""

import json
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.system.files import sha256_of, write_bytes

_MIN_AGE_NS = 2_000_000_000  # a younger file may change again within the resolution of its timestamp


@dataclass(frozen=True)
class FileState:
    """State of a file at the time it was hashed.

    Attributes:
        path: absolute path, symlinks resolved.
        size: bytes.
        mtime_ns: modification time.
        sha256: hex digest of the content.
    """

    path: Path
    size: int
    mtime_ns: int
    sha256: str

    def check_unchanged(self) -> None:
        """Raises a UserError if the file has changed since then."""
        try:
            stats = self.path.stat()
        except FileNotFoundError as error:
            raise UserError(f"{self.path} was removed while it was being read.") from error
        if (stats.st_size, stats.st_mtime_ns) != (self.size, self.mtime_ns):
            raise UserError(f"{self.path} was changed while it was being read. Run the command again.")


def file_state(path: Path, label: str, cache: Path) -> FileState:
    """Returns the state of a regular file, hashing it unless its hash is cached by path, size and modification time.

    Args:
        path: the file.
        label: config key and value of the file, for messages.
        cache: the JSON file of hashes; need not exist. If it cannot be read or written, files are hashed each time.

    Raises:
        UserError: the file cannot be read, or is a pipe or device, which cannot be read twice.
    """
    path = path.resolve()
    try:
        stats = path.stat()
        if not stat.S_ISREG(stats.st_mode):
            raise UserError(f"{label}: a pipe or device; a corpus is read several times and must be a file.")
        cached = _load(cache).get(str(path))
        if cached is not None and cached[:2] == [stats.st_size, stats.st_mtime_ns]:
            return FileState(path, stats.st_size, stats.st_mtime_ns, str(cached[2]))
        state = FileState(path, stats.st_size, stats.st_mtime_ns, sha256_of(path))
    except OSError as error:
        raise UserError(f"{label}: cannot be read: {error.strerror or error}") from error
    state.check_unchanged()
    if time.time_ns() - state.mtime_ns > _MIN_AGE_NS:
        # A concurrent process may overwrite the entry; the file is then hashed once more.
        entries = {**_load(cache), str(path): [state.size, state.mtime_ns, state.sha256]}
        with suppress(OSError):
            write_bytes(cache, json.dumps(entries, indent=1).encode())
    return state


def _load(cache: Path) -> dict[str, list[object]]:
    try:
        content = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = content if isinstance(content, dict) else {}
    return {path: entry for path, entry in entries.items() if isinstance(entry, list) and len(entry) == 3}
