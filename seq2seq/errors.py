"""The errors that are not bugs: each carries one message for the user and an exit code."""


class UserError(ValueError):
    """A mistake in what the user gave: a key, a value, a file.

    The message names the full config key or the file (and line), what was found, and what to do.
    The command line prints it without a traceback and ends with code 2.
    """


class TrainingError(RuntimeError):
    """Training cannot go on (non-finite numbers, out of memory, disk full); what was saved stays good. Exit code 3."""


class Interrupted(BaseException):
    """The run stopped in order before its end and can be resumed.

    Like KeyboardInterrupt no ``Exception``: a signal may come while a library tries something and forgives failures.

    Attributes:
        exit_code: 75 (SIGUSR1, ``trainer.stop_after_minutes``), 130 (Ctrl-C) or 143 (SIGTERM).
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
