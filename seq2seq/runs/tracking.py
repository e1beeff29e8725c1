"""What a run writes while it goes: metrics.jsonl and TensorBoard events, behind one `log(step, values)`.

Logs are worth a warning, never a run: a full disk or a deleted folder is reported once and training goes on.
Records are written whole and at once, so a killed process leaves nothing half written or unwritten.
"""

import html
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.runs.tensorboard_file import EventFile
from seq2seq.system.files import write_bytes
from seq2seq.system.log_file import Kept, LogFile

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
            resume_step: Step of the checkpoint that the run goes on from; the logs are brought to where an
                uninterrupted run had them then, see `log_file.Kept`. None starts with empty logs.
        """
        self._lines = _MetricsFile(folder / "metrics.jsonl", Kept(resume_step))
        self._events = _open_events(folder / "tensorboard", Kept(resume_step))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Records scalars by tag at a step; a tag that is there at that step keeps its first value.

        In metrics.jsonl a value that is not finite is null, because JSON has no such numbers.
        """
        now = time.time()
        numbers = {tag: float(value) for tag, value in values.items()}
        self._lines.add(numbers, step, now)
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
        self._lines.file.sync()
        if self._events is not None:
            self._events.file.sync()

    def close(self) -> None:
        """Flushes and closes; closing again does nothing."""
        self.flush()
        self._lines.file.close()
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


class _MetricsFile:
    """`metrics.jsonl`: a line for each value."""

    def __init__(self, path: Path, kept: Kept) -> None:
        self._kept = kept
        try:
            if path.is_file():
                write_bytes(path, b"".join(_surviving(path, kept)))
        except OSError as error:
            logger.warning("%s could not be cut back to step %d: %s", path, kept.last_step, error)
        self.file = LogFile(path)

    def add(self, values: Mapping[str, float], step: int, wall_time: float) -> None:
        """Appends the values of a step in one go, but those that are there."""
        lines = (
            {"step": step, "tag": tag, "value": value if math.isfinite(value) else None, "wall_time": wall_time}
            for tag, value in values.items()
            if self._kept.new(step, tag)
        )
        self.file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _surviving(path: Path, kept: Kept) -> list[bytes]:
    """The lines of metrics.jsonl that stay; those that a crash of the machine damaged do not."""
    with path.open("rb") as file:
        read = [(line, at) for line in file if (at := _step_and_tag(line)) is not None]
    stays = kept.survivors([at for _, at in read])
    return [line.rstrip(b"\n") + b"\n" for (line, _), stay in zip(read, stays, strict=True) if stay]


def _step_and_tag(line: bytes) -> tuple[int, str] | None:
    """Where a line of metrics.jsonl belongs, None for a damaged one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step, tag = record.get("step"), record.get("tag")
    return (step, tag) if isinstance(step, int) and isinstance(tag, str) else None


def _summaries() -> Any:
    """Imports torch's builders of summaries, which carry no types."""
    from torch.utils.tensorboard import summary

    return summary


def _open_events(folder: Path, kept: Kept) -> EventFile | None:
    try:
        return EventFile(folder, kept)
    except ImportError as error:
        logger.warning("no TensorBoard events are written: %s", error)
        return None
