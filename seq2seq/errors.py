"""The errors that are not bugs: each carries one message for the user and an exit code."""


class UserError(ValueError):
    """A mistake in what the user gave: a key, a value, a file.

    The message names the full config key or the file (and line), what was found, and what to do.
    The command line prints it without a traceback and ends with code 2.
    """


class TrainingError(RuntimeError):
    """Training cannot go on (non-finite numbers, out of memory, disk full); what was saved stays good. Exit code 3."""
