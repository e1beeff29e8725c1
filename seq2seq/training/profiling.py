"""Profiles of training steps: a trace of all operators, and a table of the slowest."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

logger = logging.getLogger("seq2seq")

_TABLE_ROWS = 30


class StepProfiler:
    """Records a range of training steps with torch.profiler.

    Args:
        steps: First and last step to record, from 1; None records nothing.
        folder: Receives ``steps-FIRST-LAST.json``, a trace for Perfetto or chrome://tracing, and ``.txt``, the table.
        device: Device of the model, whose kernels are recorded too.
    """

    def __init__(self, steps: Sequence[int] | None, folder: Path, device: torch.device):
        self._first, self._last = steps or (1, 0)  # an empty range
        self._folder = folder
        self._device = device.type
        self._profile: profile | None = None

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Within the context, records a step if it is in the range; writes the files after the last one."""
        if not self._first <= step <= self._last:
            yield
            return
        if self._profile is None:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device == "cuda" else [])]
            self._profile = profile(activities=activities)
            self._profile.start()
        with record_function(f"step {step}"):
            yield
        if step == self._last:
            self._write()

    def close(self) -> None:
        """Stops recording; what has been recorded of an unfinished range is dropped."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self) -> None:
        assert self._profile is not None
        self._profile.stop()
        recorded, self._profile = self._profile, None
        path = self._folder / f"steps-{self._first}-{self._last}.json"
        by = "self_device_time_total" if self._device == "cuda" else "self_cpu_time_total"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(path))
            table = recorded.key_averages().table(sort_by=by, row_limit=_TABLE_ROWS, max_name_column_width=60)
            path.with_suffix(".txt").write_text(table, encoding="utf-8")
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the trace cannot be written
            logger.warning("cannot write the profile %s: %s", path, error)
            return
        logger.info("profile of steps %d to %d: %s", self._first, self._last, path)
