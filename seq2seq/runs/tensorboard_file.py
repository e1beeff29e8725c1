"""The TensorBoard event file of a run: has every logged value exactly once, however often the run was killed."""

import io
import logging
import os
import socket
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.system.files import write_bytes
from seq2seq.system.log_file import LogFile, ResumeFilter

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

logger = logging.getLogger(__name__)


class EventFile:
    """One event file, written in the calling thread; event files of earlier processes are merged into it.

    `SummaryWriter` cannot do this, as `EventAccumulator` (the reader of TensorBoard without its data server) shows.
    With `purge_step` one above the checkpoint's step, what a resumed run repeats at that step is read twice; with
    `purge_step` at that step, values that it does not repeat, such as train/loss, are missing. And after a full disk or
    a deleted folder its writer thread has printed a traceback and ended: every later call fails, even once there is
    space, and readers stop at the record that was half written.

    Args:
        folder: Folder of the event files; created if it does not exist.
        resume_filter: Selects the records of the old files to keep.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, resume_filter: ResumeFilter) -> None:
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

        # TensorBoard recognizes event files by this name.
        name = f"events.out.tfevents.{time.time():.9f}.{socket.gethostname()}.{os.getpid()}"
        self._resume_filter = resume_filter
        old_files = sorted(folder.glob("events.out.tfevents.*"))
        try:
            # A loader reads up to the first damaged record.
            records = chain.from_iterable(RawEventFileLoader(str(path)).Load() for path in old_files)
            kept = _encode_records(resume_filter.kept(records, _step_and_tag))
            # The header makes a running TensorBoard drop everything from step 0 on and read it again.
            write_bytes(folder / name, _file_header(purge_step=0) + kept)
            for path in folder.glob("*tfevents*"):  # includes temporary files of a process that was killed here
                if path.name != name:
                    _empty(path)
        except OSError as error:
            logger.warning("%s: older events could not be merged into one file: %s", folder, error)
            self.file = LogFile(folder / name)
            self.file.write(_file_header(purge_step=resume_filter.last_step + 1))
        else:
            self.file = LogFile(folder / name)

    def add(self, summary: "Summary", step: int, wall_time: float) -> None:
        """Appends a summary of one value, unless its tag is already logged at that step."""
        from tensorboard.compat.proto.event_pb2 import Event

        if self._resume_filter.is_new(step, summary.value[0].tag):
            self.file.write(
                _encode_records([Event(wall_time=wall_time, step=step, summary=summary).SerializeToString()])
            )


def _empty(path: Path) -> None:
    """Empties a file, or deletes one that is empty already, at the next resume.

    A running TensorBoard moves on from a file without new records, but waits forever for a deleted one.
    """
    if path.stat().st_size > 0:
        os.truncate(path, 0)
    else:
        path.unlink()


def _file_header(*, purge_step: int) -> bytes:
    """Returns the version record and a START record, which makes readers drop all steps from `purge_step` on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    version = Event(wall_time=time.time(), file_version="brain.Event:2")
    start = Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))
    return _encode_records([version.SerializeToString(), start.SerializeToString()])


def _step_and_tag(record: bytes) -> tuple[int, str] | None:
    """Returns step and tag of a summary, which has one value in our files; None for other or damaged events."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        event = Event.FromString(record)
    except DecodeError:
        return None
    return (event.step, event.summary.value[0].tag) if event.summary.value else None


def _encode_records(records: Iterable[bytes]) -> bytes:
    """Encodes records in the event file format, with lengths and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    for record in records:
        writer.write(record)
    return content.getvalue()
