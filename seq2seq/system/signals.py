"""Signals that ask for an orderly stop: the first is heeded, a second leaves at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from seq2seq.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Abandoned(BaseException):
    """Somebody asked this process to stop while it did something that can be done again."""


class StopRequest:
    """Whether somebody asked this process to stop, and how it should end.

    Attributes:
        exit_code: None while nobody asked.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._abandoning = False

    @contextmanager
    def abandoning(self, enabled: bool) -> Iterator[None]:
        """Within the context, the first signal raises ``Abandoned`` at once, wherever that is; one before it, here.

        For work that changes nothing, such as an evaluation.
        """
        self._abandoning = enabled
        try:
            if enabled and self.exit_code is not None:
                raise Abandoned
            yield
        finally:
            self._abandoning = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Notes the first signal; a second one ends the process without saving."""
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code is None:
            self.exit_code = code
            if self._abandoning:
                raise Abandoned
        elif "TORCHELASTIC_RUN_ID" not in os.environ:
            # torchrun passes on a signal that may have reached its processes already, and kills after half a minute.
            os._exit(code)


def signal_name(exit_code: int) -> str:
    """The name of the signal that ends a process with this code."""
    return next(number.name for number, code in EXIT_CODES.items() if code == exit_code)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the context, the first signal is only noted: the training loop ends its step, saves, and leaves.

    Outside the main thread, where Python cannot install handlers, the request just never comes.

    Raises:
        Interrupted: If the block comes to its end without heeding a signal, which came while the last step was saved.
    """
    request = StopRequest()
    with _handling(request.handle):
        yield request
    if request.exit_code is not None:
        raise _interrupted(request.exit_code)


def _interrupted(exit_code: int) -> Interrupted:
    return Interrupted(f"stopped by {signal_name(exit_code)}", exit_code)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the context, the first signal raises ``Interrupted``, so that temporary files are cleared away.

    It may come inside a library that makes an error of its own of it: any error after a signal counts as one.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        first = request.exit_code is None
        request.handle(number, frame)
        if first:
            raise _interrupted(EXIT_CODES[signal.Signals(number)])

    with _handling(handle):
        try:
            yield
        except Exception as error:
            if request.exit_code is None:
                raise
            raise _interrupted(request.exit_code) from error


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within the context, a signal ends the process with one line.

    For imports: libraries forgive failures of what they import, and then go on broken.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(2, f"seq2seq: stopped by {signal.Signals(number).name}\n".encode())
        os._exit(EXIT_CODES[signal.Signals(number)])

    with _handling(handle):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Within the context, signals wait; at its end they meet the handlers that there were.

    A process that is started in it never gets a SIGINT, not even while it starts: Ctrl-C reaches all processes of a
    terminal, and heeding it is for the parent.
    """
    came: list[int] = []
    try:
        with _handling(lambda number, frame: came.append(number)):
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Installs a handler of the signals in ``EXIT_CODES`` and restores the ones there were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
