"""Tasks in a background thread, one at a time, so that training does not wait for a checkpoint to be written."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs tasks in order, one at a time.

    The error of a task is raised once, in the thread that next submits or waits. As a context manager it waits on
    exit, even if the block fails, so that no task outlives what it works on (a locked run folder); an error of the task
    then replaces that of the block, which becomes its `__context__`. A process that exits without waiting still
    finishes the task, because the executor joins its thread; only a kill or `os._exit` does not.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def submit(self, task: Callable[[], None]) -> None:
        """Starts a task once the previous one is done.

        Raises:
            BaseException: What the previous task raised; the new one is not started then.
        """
        self.wait()
        self._pending = self._executor.submit(task)

    def raise_error(self) -> None:
        """Raises the error of the current task if it has already failed; does not wait for it."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the current task.

        Raises:
            BaseException: What the task raised.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
