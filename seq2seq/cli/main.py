"""The command `seq2seq`: picks the command and turns outcomes into exit codes."""

import contextlib
import errno
import io
import os
import signal
import sys
from typing import NoReturn

from seq2seq import __version__

COMMANDS = {
    "train": "prepare the data, train, score the best checkpoint on every test set",
    "check": "look at machine, data, memory and speed before training",
    "prepare": "only train the tokenizer and write the token store",
    "evaluate": "score a run's checkpoint on its test sets, or on others",
    "generate": "translate or summarise: one output line for each input line",
    "average": "average checkpoints of a run into a new one",
    "report": "rank the runs of a sweep",
    "compare": "test whether runs, or files of outputs, differ by more than chance",
}

USAGE = (
    "seq2seq trains sequence-to-sequence models from scratch: translation and summarisation.\n\n"
    "usage: seq2seq COMMAND [KEY=VALUE ...]\n\n"
    + "\n".join(f"  {command:<10} {purpose}" for command, purpose in COMMANDS.items())
    + "\n\n`seq2seq COMMAND --help` shows examples and every key; `seq2seq --version` the version.\n"
)


# A full disk, a quota, and a limit on the size of files (`ulimit -f`).
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> NoReturn:
    """Runs the command of the command line; ends with the exit code that the README documents."""
    _prepare_streams()
    try:
        code = _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # outside a command; inside, its handler raises Interrupted
        code = _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our standard output has gone: it has what it wanted
        code = 0
    except OSError as error:
        if error.errno in _NO_SPACE:
            code = _fail(f"no space left: {_told(error)}; what was saved before is good", 3)
        elif error.errno in _NO_PERMISSION:
            code = _fail(f"cannot be read or written: {_told(error)}", 2)
        else:
            raise
    _let_go_of_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the interpreter ends shows no traceback
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    """Answers what needs no command, or runs the command; returns the exit code."""
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
            getattr(commands, command)(arguments)
    except UserError as error:
        if wants_traceback:
            raise
        return _fail(str(error), 2)
    except TrainingError as error:
        return _fail(str(error), 3)
    except Interrupted as stop:
        return _fail(str(stop), stop.exit_code, kind="")
    return 0


def _told(error: OSError) -> str:
    """An error of the operating system in words; what has no file name went to standard output."""
    return f"{error.filename or 'standard output'}: {error.strerror}"


def _fail(message: str, code: int, *, kind: str = "error: ") -> int:
    """Tells what happened, to whoever still listens."""
    with contextlib.suppress(OSError):
        print(f"seq2seq: {kind}{message}", file=sys.stderr, flush=True)
    return code


def _prepare_streams() -> None:
    """Makes output possible whatever the caller did to the standard streams.

    A closed one becomes the null device: its number would otherwise go to the next file that is opened, and what is
    meant for people would end there. Letters that the terminal's encoding lacks are escaped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number, which is the one that was closed
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go_of_streams() -> None:
    """Sends what a broken pipe or a full disk refuses to the null device: the interpreter would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
