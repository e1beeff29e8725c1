"""Signals that ask a process to stop: SIGINT, SIGTERM and SIGUSR1.

What the first one does depends on the context; a second one exits immediately, except under torchrun:

* `stop_requests`: recorded, for the training loop to finish its step, save and exit.
* `StopRequest.abort_on_signal`: aborts an evaluation within that loop.
* `interruptible`: raises `Interrupted`, for commands that have nothing to save.
* `exit_on_signal`: exits at once, for imports.
* `deferred_signals`: delivered at the end of the context, for starting child processes.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from seq2seq.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h, also for a time limit: run the same command again


class Aborted(BaseException):
    """A signal aborted work that the resumed run repeats, such as an evaluation; never leaves the training loop."""


class StopRequest:
    """Whether this process was asked to stop.

    Args:
        to_raise: Makes the exception that the first signal raises, from its exit code; None only records the signal.

    Attributes:
        exit_code: Exit code for the signal; None if there was none.
    """

    def __init__(self, to_raise: Callable[[int], BaseException] | None = None) -> None:
        self.exit_code: int | None = None
        self._to_raise = to_raise

    @contextmanager
    def abort_on_signal(self, enabled: bool) -> Iterator[None]:
        """Within the context, the first signal raises ``Aborted`` immediately; entering after a signal raises it too.

        For work without side effects, such as an evaluation.

        Args:
            enabled: If False, the context does nothing.
        """
        self._to_raise = (lambda code: Aborted()) if enabled else None
        try:
            if enabled and self.exit_code is not None:
                raise Aborted
            yield
        finally:
            self._to_raise = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Records the first signal; a second one ends the process without saving, except under torchrun."""
        code = EXIT_CODES[signal.Signals(signum)]
        if self.exit_code is None:
            self.exit_code = code
            if self._to_raise is not None:
                raise self._to_raise(code)
        # torchrun forwards a signal that may have reached its processes already, and kills after half a minute.
        elif "TORCHELASTIC_RUN_ID" not in os.environ:
            os._exit(code)


def signal_name(exit_code: int) -> str:
    """Returns the name of the signal that ends a process with this exit code."""
    return next(signum.name for signum, code in EXIT_CODES.items() if code == exit_code)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the context, the first signal is only recorded: the training loop finishes its step, saves, and exits.

    Outside the main thread, where Python cannot install handlers, there are no requests.

    Raises:
        Interrupted: A signal arrived and the block ended normally, because its last step was done by then.
    """
    request = StopRequest()
    with _signal_handler(request.handle):
        yield request
    if request.exit_code is not None:
        raise _interrupted(request.exit_code)


def _interrupted(exit_code: int) -> Interrupted:
    return Interrupted(f"stopped by {signal_name(exit_code)}", exit_code)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the context, the first signal raises ``Interrupted``, so that temporary files are removed.

    A library may turn it into an error of its own, so any error after a signal is treated as an interruption.
    """
    request = StopRequest(to_raise=_interrupted)
    with _signal_handler(request.handle):
        try:
            yield
        except Exception as error:
            if request.exit_code is None:
                raise
            raise _interrupted(request.exit_code) from error


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Within the context, a signal ends the process with a one-line message.

    For imports: libraries swallow import errors, and would then continue in a broken state.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(2, f"seq2seq: stopped by {signal.Signals(signum).name}\n".encode())
        os._exit(EXIT_CODES[signal.Signals(signum)])

    with _signal_handler(handle):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the context, signals are deferred; at its end they are delivered to the previous handlers.

    A process started in the context never gets a SIGINT, not even while it starts: Ctrl-C reaches all processes of a
    terminal, and the parent handles it.
    """
    received: list[int] = []
    try:
        with _signal_handler(lambda signum, frame: received.append(signum)):
            previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    finally:
        for signum in received:
            signal.raise_signal(signum)


@contextmanager
def _signal_handler(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Installs a handler for the signals in ``EXIT_CODES``, and restores the previous ones on exit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signum: signal.signal(signum, handle) for signum in EXIT_CODES}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
