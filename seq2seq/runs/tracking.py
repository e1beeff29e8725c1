"""Logs of a run: `metrics.jsonl` and TensorBoard events, behind one `log(step, values)`.

Logging never stops a run: a full disk or a deleted folder is reported once, and training continues.
Records are written immediately and whole, so that a killed process leaves no partial or missing records.
"""

import html
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.runs.tables import shorten
from seq2seq.runs.tensorboard_file import EventFile
from seq2seq.system.files import write_bytes
from seq2seq.system.log_file import LogFile, ResumeFilter

logger = logging.getLogger(__name__)

_ENTITY_OF_MARKDOWN = {ord(c): f"&#{ord(c)};" for c in "\\`*_{}[]()#+-.!|~$"}


class Tracker:
    """Writes `metrics.jsonl` and `tensorboard/` of a run folder; without a folder, accepts the same calls only."""

    def __init__(self, folder: Path | None = None, *, resume_step: int | None = None) -> None:
        """Opens the logs, truncated to the step that training resumes from.

        Args:
            folder: The run folder, created if it does not exist; None on ranks that write nothing.
            resume_step: Step of the checkpoint to resume from; the logs are cut back to what an uninterrupted run
                had written by then, see `log_file.ResumeFilter`. None starts with empty logs.
        """
        self._lines: _MetricsFile | None = None
        self._events: EventFile | None = None
        if folder is None:
            return
        self._lines = _MetricsFile(folder / "metrics.jsonl", ResumeFilter(resume_step))
        try:
            self._events = EventFile(folder / "tensorboard", ResumeFilter(resume_step))
        except ImportError as error:
            logger.warning("no TensorBoard events are written: %s", error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Records scalars by tag at a step; a tag already logged at that step keeps its first value.

        In metrics.jsonl a non-finite value becomes null, because JSON has no such numbers.
        """
        now = time.time()
        scalars = {tag: float(value) for tag, value in values.items()}
        if self._lines is not None:
            self._lines.add(scalars, step, now)
        self._add_events(step, now, lambda summary: [summary.scalar(tag, scalar) for tag, scalar in scalars.items()])

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Records a Markdown text in TensorBoard; use `escape_markdown` for user-provided parts."""
        self._add_events(step, time.time(), lambda summary: [summary.text(tag, markdown)])

    def image(self, step: int, tag: str, pixels: NDArray[np.uint8]) -> None:
        """Records an image, uint8 [height, width, 3], in TensorBoard."""
        self._add_events(step, time.time(), lambda summary: [summary.image(tag, pixels, dataformats="HWC")])

    def hparams(self, flat: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Records the settings that TensorBoard's HPARAMS tab compares runs by; call once, at the start.

        Writes them to the run's own event file; `SummaryWriter.add_hparams` would create a second, time-stamped
        run for them.

        Args:
            flat: Values by full config key; about 20 are readable. Numbers stay numbers, other values become text.
            metrics: Tags of scalars recorded by `log`, shown as the results of the runs.
        """
        settings = {key: _hparam(value) for key, value in flat.items()}
        self._add_events(0, time.time(), lambda summary: summary.hparams(settings, dict.fromkeys(metrics, 0)))

    def _add_events(self, step: int, now: float, build: Callable[[Any], Iterable[Any]]) -> None:
        """Appends to the TensorBoard file the summaries that `build` makes with torch's builders."""
        if self._events is not None:
            from torch.utils.tensorboard import summary

            for value in build(summary):
                self._events.add(value, step, now)

    def flush(self) -> None:
        """Flushes everything recorded so far to disk (fsync)."""
        for log in (self._lines, self._events):
            if log is not None:
                log.file.sync()

    def close(self) -> None:
        """Flushes and closes; closing again does nothing."""
        self.flush()
        for log in (self._lines, self._events):
            if log is not None:
                log.file.close()


def escape_markdown(text: str) -> str:
    """Escapes text so that a cell of a Markdown table shows it literally."""
    return html.escape(text, quote=False).translate(_ENTITY_OF_MARKDOWN).replace("\n", "<br>")


class Markdown(str):
    """Text that is Markdown already, without line breaks; `samples_markdown` does not escape it."""


def samples_markdown(rows: Sequence[Mapping[str, str]], *, max_characters: int = 500) -> str:
    """Formats samples as a Markdown table with the first row's keys as columns.

    Args:
        rows: One mapping per sample, such as source, reference and output, all with the same keys. Text is escaped,
            unless it is `Markdown`.
        max_characters: Longer texts are cut and end in an ellipsis, so that e-mails do not fill the page.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column], max_characters) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def copy_probs_markdown(tokens: Sequence[str], copy_probs: Sequence[float], *, max_tokens: int = 100) -> Markdown:
    """Formats each token with the probability, in percent, that it was copied; bold from 50 % on.

    Bold, because TensorBoard strips colors.

    Args:
        tokens: T labels.
        copy_probs: T probabilities.
        max_tokens: Further tokens are replaced by an ellipsis.
    """
    parts = []
    for token, copy_prob in list(zip(tokens, copy_probs, strict=True))[:max_tokens]:
        label = escape_markdown(token)
        part = f"{label} {100 * copy_prob:.0f}"
        parts.append(f"<strong>{part}</strong>" if copy_prob >= 0.5 else part)
    return Markdown(" · ".join([*parts, "…"] if len(tokens) > max_tokens else parts))


def _cell(text: str, limit: int) -> str:
    return text if isinstance(text, Markdown) else escape_markdown(shorten(text, limit))


def _hparam(value: Any) -> float | str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return value if isinstance(value, int | float | str) else str(value)


class _MetricsFile:
    """`metrics.jsonl`: one line per value."""

    def __init__(self, path: Path, resume_filter: ResumeFilter) -> None:
        self._resume_filter = resume_filter
        try:
            if path.is_file():
                with path.open("rb") as file:
                    kept = resume_filter.kept(file, _step_and_tag)
                write_bytes(path, b"".join(line.rstrip(b"\n") + b"\n" for line in kept))
        except OSError as error:
            logger.warning("%s could not be truncated to step %d: %s", path, resume_filter.last_step, error)
        self.file = LogFile(path)

    def add(self, values: Mapping[str, float], step: int, wall_time: float) -> None:
        """Appends the values of a step in one write, without those already logged."""
        lines = (
            {"step": step, "tag": tag, "value": value if math.isfinite(value) else None, "wall_time": wall_time}
            for tag, value in values.items()
            if self._resume_filter.is_new(step, tag)
        )
        self.file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _step_and_tag(line: bytes) -> tuple[int, str] | None:
    """Returns step and tag of a line of metrics.jsonl; None if it is damaged, as after a system crash."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step, tag = record.get("step"), record.get("tag")
    return (step, tag) if isinstance(step, int) and isinstance(tag, str) else None
