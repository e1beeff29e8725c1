"""The log for users: lines on standard error, and in a file if there is one."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import Interrupted, TrainingError, UserError
from seq2seq.system.log_file import LogFileHandler

logger = logging.getLogger("seq2seq")


@contextmanager
def console_log(*, quiet: bool = False, file: Path | None = None) -> Iterator[None]:
    """Within the context, sends the log of the package to standard error, and to `file` if given.

    Standard output is reserved for results. ``quiet`` (for ranks other than 0) shows warnings only.
    """
    handlers: list[logging.Handler] = [_ConsoleHandler(logging.WARNING if quiet else logging.INFO)]
    if file is not None:
        handlers.append(LogFileHandler(file))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except (UserError, TrainingError, Interrupted) as error:
        if file is not None:  # on the console, the command itself prints the error
            handlers[1].emit(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (error,), None))
        raise
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


class _ConsoleHandler(logging.Handler):
    """Writes lines to standard error without breaking a progress bar; ignores a closed stream."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except (OSError, ValueError):  # closed pipe, closed file
            self.setLevel(logging.CRITICAL + 1)
