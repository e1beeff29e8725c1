"""The program `seq2seq`: runs a command and turns its outcome into an exit code."""

import contextlib
import errno
import io
import os
import signal
import sys
from typing import NoReturn

from seq2seq import __version__

COMMANDS = {
    "train": "prepare the data, train, and score the best checkpoint on every test set",
    "check": "check machine, data, memory and speed before training",
    "prepare": "only train the tokenizer and encode the data",
    "evaluate": "score a run's checkpoint on its test sets, or on others",
    "generate": "translate or summarise text: one output line per input line",
    "average": "average checkpoints of a run into a new checkpoint",
    "report": "rank the runs of a sweep, or of any folder",
    "compare": "test whether the scores of runs or output files differ significantly",
}

USAGE = (
    "seq2seq trains sequence-to-sequence models from scratch, for translation and summarisation.\n\n"
    "usage: seq2seq COMMAND [KEY=VALUE ...]\n\n"
    + "\n".join(f"  {command:<10} {purpose}" for command, purpose in COMMANDS.items())
    + "\n\nseq2seq COMMAND --help   shows examples, all keys and their default values\n"
    "seq2seq --version        prints the version\n"
)


# A full disk, a quota, or a limit on file sizes (`ulimit -f`).
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> NoReturn:
    """Runs the command given on the command line and exits with the code documented in docs/reliability.md."""
    _prepare_streams()
    try:
        code = _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # outside a command; inside, its handler raises Interrupted
        code = _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our standard output has all it wanted
        code = 0
    except OSError as error:
        if error.errno in _NO_SPACE:
            code = _fail(f"no space left: {_describe(error)}; what was saved before is intact", 3)
        elif error.errno in _NO_PERMISSION:
            code = _fail(f"cannot be read or written: {_describe(error)}", 2)
        else:
            raise
    _discard_unwritable_output()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the interpreter ends shows no traceback
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    """Prints help or version, or runs a command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in ("-V", "--version"):
        print(f"seq2seq {__version__}")
        return 0
    if command not in COMMANDS:
        import difflib

        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; choose one of {', '.join(COMMANDS)}"
        return _fail(f"no such command: {command}{hint}", 2)
    return run_command(command, rest)


def run_command(command: str, arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    from seq2seq.cli.imports import importing
    from seq2seq.errors import Interrupted, TrainingError, UserError
    from seq2seq.system.signals import interruptible

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    try:
        with importing():
            from seq2seq.cli import commands
        with interruptible():
            commands.run(command, arguments)
    except UserError as error:
        if wants_traceback:
            raise
        return _fail(str(error), 2)
    except TrainingError as error:
        return _fail(str(error), 3)
    except Interrupted as stop:
        return _fail(str(stop), stop.exit_code, kind="")
    return 0


def _describe(error: OSError) -> str:
    """Formats an error of the operating system; without a file name it is about standard output."""
    return f"{error.filename or 'standard output'}: {error.strerror}"


def _fail(message: str, code: int, *, kind: str = "error: ") -> int:
    """Prints a message to standard error, if that is still open, and returns the exit code."""
    with contextlib.suppress(OSError):
        print(f"seq2seq: {kind}{message}", file=sys.stderr, flush=True)
    return code


def _prepare_streams() -> None:
    """Makes the standard streams usable.

    Opens a closed stream as the null device: otherwise the next file that is opened would get its descriptor, and
    messages would end up in it. Escapes characters that the terminal's encoding lacks.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # gets the lowest free descriptor: that of the closed stream
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - stays open
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard_unwritable_output() -> None:
    """Redirects streams that cannot be flushed to the null device, or the interpreter would report them at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
