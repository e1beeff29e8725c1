"""A TensorBoard event file of a run, which holds exactly what the run has logged however often it was killed."""

import io
import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.system.files import write_bytes
from seq2seq.system.log_file import Kept, LogFile

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

logger = logging.getLogger(__name__)


class EventFile:
    """One event file, written in this thread; those of earlier processes become part of it.

    Differs from `SummaryWriter` twice. That one's writer thread prints a traceback and fails every later call when
    the folder vanishes or the disk is full. And on a resume it leaves later records in the older files for readers to
    drop by their step, which tells nothing of records at the checkpoint's own step.

    Args:
        folder: Of the event files; made if it does not exist.
        kept: What of the older files stays.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, kept: Kept) -> None:
        from tensorboard.backend.event_processing import event_file_loader  # noqa: F401 - fails before anything is written

        # The name that TensorBoard looks for.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
        self._kept = kept
        old = sorted(folder.glob("events.out.tfevents.*"))
        try:
            # A TensorBoard that watches the run drops what it has shown from step 0 on, and reads it anew.
            write_bytes(folder / name, _head(purge_from=0) + _surviving(old, kept))
            for path in folder.glob("*tfevents*"):  # what a process killed here left behind among them
                if path.name != name:
                    _empty(path)
        except OSError as error:
            logger.warning("%s: older events could not be brought into one file: %s", folder, error)
            self.file = LogFile(folder / name)
            self.file.write(_head(purge_from=kept.last_step + 1))
        else:
            self.file = LogFile(folder / name)

    def add(self, summary: "Summary", step: int, wall_time: float) -> None:
        """Appends a summary of one value, unless its tag is there at that step."""
        from tensorboard.compat.proto.event_pb2 import Event

        if self._kept.new(step, summary.value[0].tag):
            self.file.write(_framed([Event(wall_time=wall_time, step=step, summary=summary).SerializeToString()]))


def _empty(path: Path) -> None:
    """Empties a file; at the next resume it goes.

    TensorBoard goes on to the next file from one that has no more, but stays for good with one that is missing.
    """
    if path.stat().st_size > 0:
        os.truncate(path, 0)
    else:
        path.unlink()


def _head(*, purge_from: int) -> bytes:
    """The version that a file begins with, and the sign of a restart, at which readers drop steps from one on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    version = Event(wall_time=time.time(), file_version="brain.Event:2")
    start = Event(wall_time=time.time(), step=purge_from, session_log=SessionLog(status=SessionLog.START))
    return _framed([version.SerializeToString(), start.SerializeToString()])


def _surviving(paths: Iterable[Path], kept: Kept) -> bytes:
    """The records of event files that stay; each file is read up to the first damaged one."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    records = [record for path in paths for record in RawEventFileLoader(str(path)).Load()]
    logged = [_step_and_tag(record) for record in records]
    found = [(record, at) for record, at in zip(records, logged, strict=True) if at is not None]
    stays = kept.survivors([at for _, at in found])
    return _framed(record for (record, _), stay in zip(found, stays, strict=True) if stay)


def _step_and_tag(record: bytes) -> tuple[int, str] | None:
    """Where a summary belongs, each of ours has one value; None for other events, and for what is none."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        event = Event.FromString(record)
    except DecodeError:
        return None
    return (event.step, event.summary.value[0].tag) if event.summary.value else None


def _framed(records: Iterable[bytes]) -> bytes:
    """Records with their lengths and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    for record in records:
        writer.write(record)
    return content.getvalue()
