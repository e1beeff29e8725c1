"""One task at a time in a thread of its own, so that writing a checkpoint does not keep training waiting."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Runs tasks in the order they come, never two at a time.

    A task's error is raised once, in the thread that next submits or waits. As a context it waits at its end, also
    when the block fails, so that no task outlives what it works on (a locked run folder); an error of the task then
    takes the place of the block's, which stays its `__context__`. A process that ends without having waited, by any
    way but a kill or `os._exit`, still finishes the task first: the executor joins its thread.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def submit(self, task: Callable[[], None]) -> None:
        """Starts a task once the one before it is done.

        Raises:
            BaseException: What the task before raised; the new one is not started then.
        """
        self.wait()
        self._pending = self._executor.submit(task)

    def raise_error(self) -> None:
        """Raises what the task raised, if it has failed already; does not wait for it."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until no task is under way.

        Raises:
            BaseException: What the task raised.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
