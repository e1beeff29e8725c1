"""The log for people: lines on standard error, and in a file where there is one."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import Interrupted, TrainingError, UserError
from seq2seq.system.log_file import LogFileHandler

LOGGER = logging.getLogger("seq2seq")


@contextmanager
def console_log(*, quiet: bool = False, file: Path | None = None) -> Iterator[None]:
    """Sends the package's log to standard error, and to a file where one is named; undone at the end.

    Standard output is left alone: it belongs to results. ``quiet`` (other ranks) lets only warnings through.
    """
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    handlers[0].setLevel(logging.WARNING if quiet else logging.INFO)
    if file is not None:
        handlers.append(LogFileHandler(file))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    except (UserError, TrainingError, Interrupted) as error:
        if file is not None:  # the console is told by the command itself
            handlers[1].emit(LOGGER.makeRecord(LOGGER.name, logging.ERROR, __file__, 0, "%s", (error,), None))
        raise
    finally:
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


class _ConsoleHandler(logging.Handler):
    """Writes lines to standard error without tearing a progress bar; a closed stream is no reason to stop."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except (OSError, ValueError):  # closed pipe, closed file
            self.setLevel(logging.CRITICAL + 1)
