"""Signals that ask for an orderly stop: the first is noted, a second leaves at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class StopRequest:
    """Whether somebody asked this process to stop, and how it should end.

    Attributes:
        exit_code: None while nobody asked.
        reason: The signal's name.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.reason = ""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Notes the first signal; a second one ends the process without saving."""
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code is not None:
            os._exit(code)
        self.exit_code, self.reason = code, signal.Signals(number).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catches SIGINT, SIGTERM and SIGUSR1 within the context and restores their handlers afterwards.

    Outside the main thread, where Python cannot install handlers, the request just never comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
