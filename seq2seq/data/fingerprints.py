"""What files hold, by sha256, without reading a file again that has not changed since it was last hashed."""

import hashlib
import json
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes

_SETTLED_NS = 2_000_000_000  # a file this young may change again without its time stamp showing it


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was hashed.

    Attributes:
        path: absolute path, links resolved.
        size: bytes.
        mtime_ns: time of the last change.
        sha256: hex digest of the content.
    """

    path: Path
    size: int
    mtime_ns: int
    sha256: str

    def check_unchanged(self) -> None:
        """Raises a UserError if the file has changed since."""
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            raise UserError(f"{self.path} was removed while it was read.") from error
        if (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns):
            raise UserError(f"{self.path} was changed while it was read. Run the command again.")


class HashCache:
    """Remembers hashes by path, size and time of change, in a JSON file.

    Args:
        path: the JSON file; need not exist. One that cannot be read or written only costs time.
    """

    def __init__(self, path: Path):
        self._path = path

    def state(self, path: Path, label: str) -> FileState:
        """The state of a regular file.

        Args:
            path: the file.
            label: its config key and value for messages.

        Raises:
            UserError: it cannot be read, or is a pipe or device, which cannot be read twice.
        """
        path = path.resolve()
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{label}: a pipe or device; a corpus is read several times and must be a file.")
            known = self._load().get(str(path))
            if known is not None and known[:2] == [found.st_size, found.st_mtime_ns]:
                return FileState(path, found.st_size, found.st_mtime_ns, str(known[2]))
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{label}: cannot be read: {error.strerror or error}") from error
        state = FileState(path, found.st_size, found.st_mtime_ns, digest)
        state.check_unchanged()
        if time.time_ns() - state.mtime_ns > _SETTLED_NS:
            self._remember(state)
        return state

    def _load(self) -> dict[str, list[object]]:
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        known = content if isinstance(content, dict) else {}
        return {path: entry for path, entry in known.items() if isinstance(entry, list) and len(entry) == 3}

    def _remember(self, state: FileState) -> None:
        # Two processes at once may lose each other's entry: it is then hashed once more, nothing else.
        entries = {**self._load(), str(state.path): [state.size, state.mtime_ns, state.sha256]}
        with suppress(OSError):
            write_bytes(self._path, json.dumps(entries, indent=1).encode())
