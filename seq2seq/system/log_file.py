"""Append-only logs: what of them stays when a run goes on, and writes whose failures cost a warning."""

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


class Kept:
    """What a log holds: every tag once a step, and of an earlier process only what its last checkpoint knows of.

    Steps after the checkpoint are trained again. Scores of test sets follow the last checkpoint of a run, so they are
    computed again, too, or do not belong there any more because a limit was raised. An evaluation at the checkpoint's
    own step may have been cut short, or have ended before its result was saved; the resumed run repeats it, and then
    what is there already is not logged a second time.

    Args:
        last_step: Step of the checkpoint that the run goes on from; None keeps nothing.
    """

    def __init__(self, last_step: int | None):
        self.last_step = -1 if last_step is None else last_step
        self._step = -1
        self._tags: set[str] = set()  # those of that step

    def survivors(self, logged: list[tuple[int, str]]) -> list[bool]:
        """Tells which records of a log, given by step and tag in their order, stay; call it before the first `new`."""
        seen: set[tuple[int, str]] = set()
        stays = []
        for step, tag in logged:
            stays.append(step <= self.last_step and not tag.startswith("test/") and (step, tag) not in seen)
            if stays[-1]:
                seen.add((step, tag))
        self._step = self.last_step
        self._tags = {tag for step, tag in seen if step == self.last_step}
        return stays

    def new(self, step: int, tag: str) -> bool:
        """Tells whether a tag is not yet there at a step, and notes it; steps come in their order."""
        if step != self._step:
            self._step, self._tags = step, set()
        is_new = tag not in self._tags
        self._tags.add(tag)
        return is_new


class LogFile:
    """An append-only file whose failures cost one warning.

    A record is written whole or taken back, so that what follows a full disk is readable; once there is
    space again, records go on. A file that was deleted is given up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._warn(error)

    def write(self, record: bytes) -> None:
        """Appends a record and hands it to the operating system."""
        if self._descriptor is None:
            return
        end: int | None = None
        try:
            end = os.fstat(self._descriptor).st_size
            written = 0
            while written < len(record):
                written += os.write(self._descriptor, record[written:])
            os.stat(self.path)  # writing to a deleted file raises nothing
        except FileNotFoundError as error:
            self._warn(error)
            self.close()
        except OSError as error:
            self._warn(error)
            self._take_back(end)

    def sync(self) -> None:
        """Waits until the disk has it."""
        descriptor = self._descriptor  # a save in the background syncs, and the loop may give the file up meanwhile
        if descriptor is None:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Closes the file; closing again does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.close(descriptor)
            except OSError as error:  # network file systems report a full disk here
                self._warn(error)

    def _take_back(self, end: int | None) -> None:
        if self._descriptor is None or end is None:
            return
        try:
            os.ftruncate(self._descriptor, end)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True  # first, because the warning may be logged to this very file
            logger.warning("%s cannot be written, training continues without: %s", self.path, error)


class LogFileHandler(logging.Handler):
    """Writes log messages to a file; logging's own handler prints a traceback for each one that a full disk refuses.

    Args:
        path: Appended to.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._file = LogFile(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message; what is no text (a file name of other bytes) is escaped."""
        self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
