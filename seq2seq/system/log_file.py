"""Append-only logs: which records to keep when a run resumes, and writes whose failures cost a warning only."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)


class ResumeFilter:
    """Selects the records of a log that remain valid on resume; each tag is logged once per step.

    Steps after the checkpoint are trained again, so their records are dropped. Test scores are computed after the last
    checkpoint, so they are computed again too, or are obsolete because training was extended. An evaluation at the step
    of the checkpoint may have been interrupted, or have ended before its result was saved; the resumed run repeats it
    without logging existing records a second time.

    Args:
        last_step: Step of the checkpoint to resume from; None keeps nothing.
    """

    def __init__(self, last_step: int | None):
        self.last_step = -1 if last_step is None else last_step
        self._step = -1
        self._tags: set[str] = set()  # tags logged at that step

    def kept(self, records: Iterable[bytes], step_and_tag: Callable[[bytes], tuple[int, str] | None]) -> list[bytes]:
        """Returns the records of a log that remain valid, in order; call before the first `is_new`.

        Args:
            records: The records in the order of the log.
            step_and_tag: Returns the step and the tag of a record; None drops the record.
        """
        kept: dict[tuple[int, str], bytes] = {}
        for record in records:
            logged = step_and_tag(record)
            if logged is not None and logged[0] <= self.last_step and not logged[1].startswith("test/"):
                kept.setdefault(logged, record)
        self._step = self.last_step
        self._tags = {tag for step, tag in kept if step == self.last_step}
        return list(kept.values())

    def is_new(self, step: int, tag: str) -> bool:
        """Returns whether a tag has not been logged at a step yet, and records it; call with ascending steps."""
        if step != self._step:
            self._step, self._tags = step, set()
        is_new = tag not in self._tags
        self._tags.add(tag)
        return is_new


class LogFile:
    """An append-only file that warns once when it cannot be written.

    A record is written whole or removed again, so that the file stays readable after a full disk; writing
    resumes once there is space. If the file was deleted, nothing more is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False
        self._descriptor: int | None = None
        with self._warn_on_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def write(self, record: bytes) -> None:
        """Appends a record, without waiting for the disk."""
        if self._descriptor is None:
            return
        with self._warn_on_error():
            end = os.fstat(self._descriptor).st_size
            try:
                while record:
                    record = record[os.write(self._descriptor, record) :]
                os.stat(self.path)  # writing to a deleted file raises nothing
            except FileNotFoundError:
                self.close()
                raise
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise

    def sync(self) -> None:
        """Flushes all records to the disk."""
        descriptor = self._descriptor  # called by a background save while the training loop may close the file
        if descriptor is not None:
            with self._warn_on_error():
                os.fsync(descriptor)

    def close(self) -> None:
        """Closes the file; closing again does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with self._warn_on_error():  # network file systems report a full disk here
                os.close(descriptor)

    @contextmanager
    def _warn_on_error(self) -> Iterator[None]:
        """Within the context, the first error of this file costs a warning, and later ones nothing."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warned = True  # first, because the warning may be logged to this file
                logger.warning("%s cannot be written; training continues without it: %s", self.path, error)


class LogFileHandler(logging.Handler):
    """Appends log messages to a file. Unlike logging.FileHandler, prints no traceback per message on a full disk.

    Args:
        path: The file to append to.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._file = LogFile(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message; lone surrogates, from undecodable file names, are escaped."""
        self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
