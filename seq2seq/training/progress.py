"""Progress bar on a terminal, with rate and remaining time; silent elsewhere."""

import os
import sys
import time

from tqdm import tqdm


class Progress:
    """Progress bar over the optimizer steps of a run.

    Args:
        step: Steps already done.
        total: Steps of the run; None if something else ends it.
        enabled: False on ranks that stay silent. There is no bar either if standard error is not a terminal, or one
            that cannot return to the start of a line.
    """

    def __init__(self, step: int, total: int | None, *, enabled: bool):
        self._first_step, self._start, self._total = step, time.perf_counter(), total
        self._bar = tqdm(
            total=total,
            initial=step,
            unit="step",
            disable=not (enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"),
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
        )

    def update(self, step: int) -> None:
        """Moves the bar to a step."""
        self._bar.update(step - self._bar.n)

    def remaining(self, step: int) -> str:
        """Returns the time left as "  1:02:03 left" or "  02:03 left"; empty if it is not known."""
        done = step - self._first_step
        if self._total is None or done <= 0:
            return ""
        seconds = (time.perf_counter() - self._start) / done * max(self._total - step, 0)
        return f"  {tqdm.format_interval(seconds)} left"

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()
