"""What a run writes while it goes: metrics.jsonl and TensorBoard events, behind one `log(step, values)`.

Logs are worth a warning, never a run: a full disk or a deleted folder is reported once and training goes on.
Records are written whole and at once, so a killed process leaves nothing half written or unwritten.
"""

import html
import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

logger = logging.getLogger(__name__)

_MARKDOWN_PUNCTUATION = "\\`*_{}[]()#+-.!|~$"
_ENTITY_OF_PUNCTUATION = {ord(c): f"&#{ord(c)};" for c in _MARKDOWN_PUNCTUATION}


class NullTracker:
    """The tracker of every rank but the first: takes the same calls and writes nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Records scalars by tag at a step."""

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Records a Markdown text."""

    def image(self, step: int, tag: str, pixels: NDArray[np.uint8]) -> None:
        """Records an image, uint8 [height, width, 3]."""

    def hparams(self, flat: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Records the settings that TensorBoard's HPARAMS tab compares runs by."""

    def flush(self) -> None:
        """Brings everything recorded so far to the disk."""

    def close(self) -> None:
        """Flushes and closes; closing again does nothing."""


class Tracker(NullTracker):
    """Writes `metrics.jsonl` and `tensorboard/` of a run folder."""

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        """Opens the logs, cut back to where training goes on.

        Args:
            folder: The run folder; made if it does not exist.
            resume_step: Last step that the resumed run keeps: lines of later steps, written before the run
                was killed, are removed and TensorBoard is told to drop them. None starts with empty logs.
        """
        metrics, events = folder / "metrics.jsonl", folder / "tensorboard"
        last_step = -1 if resume_step is None else resume_step
        had_events = any(events.glob("events.out.tfevents.*"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut_back(metrics, last_step)
        except OSError as error:
            logger.warning("%s could not be cut back to step %d: %s", metrics, last_step, error)
        self._lines = _LogFile(metrics)
        self._events = _open_events(events, purge_from=last_step + 1 if had_events else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Records scalars by tag at a step.

        In metrics.jsonl a value that is not finite is null, because JSON has no such numbers.
        """
        now = time.time()
        numbers = {tag: float(value) for tag, value in values.items()}
        lines = (
            json.dumps(
                {
                    "step": step,
                    "tag": tag,
                    "value": number if math.isfinite(number) else None,
                    "wall_time": now,
                },
                ensure_ascii=False,
            )
            for tag, number in numbers.items()
        )
        self._lines.write("".join(f"{line}\n" for line in lines).encode())
        if self._events is None:
            return
        summary = _summaries()
        for tag, number in numbers.items():
            self._events.add(summary.scalar(tag, number), step, now)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Records a Markdown text in TensorBoard; escape what users wrote with `escape_markdown`."""
        if self._events is None:
            return
        self._events.add(_summaries().text(tag, markdown), step, time.time())

    def image(self, step: int, tag: str, pixels: NDArray[np.uint8]) -> None:
        """Records an image, uint8 [height, width, 3], in TensorBoard."""
        if self._events is None:
            return
        self._events.add(_summaries().image(tag, pixels, dataformats="HWC"), step, time.time())

    def hparams(self, flat: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Records the settings that TensorBoard's HPARAMS tab compares runs by; call once, at the start.

        Written into the run's own event file: `SummaryWriter.add_hparams` would open a second, time-stamped
        run for it.

        Args:
            flat: Full config key to value; about 20 are readable. Numbers stay numbers, the rest is text.
            metrics: Tags of scalars that `log` records, shown as the runs' results.
        """
        if self._events is None:
            return
        settings = {key: _hparam(value) for key, value in flat.items()}
        for part in _summaries().hparams(settings, dict.fromkeys(metrics, 0)):
            self._events.add(part, 0, time.time())

    def flush(self) -> None:
        """Brings everything recorded so far to the disk (fsync)."""
        self._lines.sync()
        if self._events is not None:
            self._events.file.sync()

    def close(self) -> None:
        """Flushes and closes; closing again does nothing."""
        self.flush()
        self._lines.close()
        if self._events is not None:
            self._events.file.close()


def escape_markdown(text: str) -> str:
    """Makes text show as itself in one cell of a Markdown table, whatever it contains."""
    return html.escape(text, quote=False).translate(_ENTITY_OF_PUNCTUATION).replace("\n", "<br>")


class Markdown(str):
    """Text that is Markdown already, without line breaks: a cell to show as it is."""


def samples_markdown(rows: Sequence[Mapping[str, str]], *, max_characters: int = 500) -> str:
    """Formats samples as a Markdown table with the first row's keys as columns.

    Args:
        rows: One mapping a sample, such as source, reference and output; the same keys in each. Text is escaped,
            unless it is `Markdown`.
        max_characters: Longer texts are cut and end in an ellipsis, so that e-mails don't fill the page.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column], max_characters) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def copied_markdown(tokens: Sequence[str], copied: Sequence[float], *, max_tokens: int = 100) -> Markdown:
    """Shows each token with the probability, in percent, that it was copied; bold from one half on.

    TensorBoard lets no colours through.

    Args:
        tokens: T labels.
        copied: T probabilities.
        max_tokens: Of more, only the first are shown, and an ellipsis.
    """
    parts = []
    for token, share in list(zip(tokens, copied, strict=True))[:max_tokens]:
        label = escape_markdown(token)
        part = f"{label} {100 * share:.0f}"
        parts.append(f"<strong>{part}</strong>" if share >= 0.5 else part)
    return Markdown(" · ".join([*parts, "…"] if len(tokens) > max_tokens else parts))


def _cell(text: str, limit: int) -> str:
    return text if isinstance(text, Markdown) else escape_markdown(_shorten(text, limit))


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _hparam(value: Any) -> float | str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return value if isinstance(value, int | float | str) else str(value)


def _cut_back(path: Path, last_step: int) -> None:
    """Removes lines of steps after the last, and what a killed process may have left half written."""
    if not path.exists():
        return
    rest = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with path.open("rb") as old, rest.open("wb") as new:
            for line in old:
                step = _step_of(line)
                if step is not None and step <= last_step:
                    new.write(line if line.endswith(b"\n") else line + b"\n")
        rest.replace(path)
    finally:
        rest.unlink(missing_ok=True)


def _step_of(line: bytes) -> int | None:
    """Returns the step of a line of metrics.jsonl, None for a damaged one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


class _LogFile:
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
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
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
            logger.warning("%s cannot be written, training goes on without: %s", self.path, error)
        self._warned = True


class _EventFile:
    """A TensorBoard event file, written in this thread.

    Differs from `SummaryWriter`, whose writer thread prints a traceback and fails every later call when the
    folder vanishes or the disk is full.
    """

    def __init__(self, folder: Path, *, purge_from: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # The name that TensorBoard looks for; its files are read in the order of their names. The counter of
        # nanoseconds keeps two openings within one second in order.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
        self.file = _LogFile(folder / name)
        self._event = Event
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=purge_from, session_log=start))

    def add(self, summary: "Summary", step: int, wall_time: float) -> None:
        """Appends a summary."""
        self._write(self._event(wall_time=wall_time, step=step, summary=summary))

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self.file).write(event.SerializeToString())


def _summaries() -> Any:
    """Imports torch's builders of summaries, which carry no types."""
    from torch.utils.tensorboard import summary

    return summary


def _open_events(folder: Path, *, purge_from: int | None) -> _EventFile | None:
    try:
        return _EventFile(folder, purge_from=purge_from)
    except ImportError as error:
        logger.warning("no TensorBoard events are written: %s", error)
        return None
