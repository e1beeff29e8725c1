"""Errors that are not bugs: each carries a message for the user and an exit code."""


class UserError(ValueError):
    """An error in the user's input: a key, a value, a file.

    The message names the full config key or the file (and line), what was found, and what to do.
    The command line prints it without a traceback and exits with code 2.
    """


class TrainingError(RuntimeError):
    """Training cannot continue (non-finite numbers, out of memory, disk full); saved files stay valid. Exit code 3."""


class Interrupted(BaseException):
    """The run stopped cleanly before its end and can be resumed.

    Like KeyboardInterrupt not an ``Exception``: a signal may arrive inside a library that swallows exceptions.

    Attributes:
        exit_code: 75 (SIGUSR1, ``trainer.stop_after_minutes``), 130 (Ctrl-C) or 143 (SIGTERM).
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
