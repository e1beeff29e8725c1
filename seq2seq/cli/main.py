"""The command `seq2seq`: picks the verb and turns outcomes into exit codes."""

import errno
import importlib
import os
import sys
from typing import NoReturn

from seq2seq import __version__

VERBS = {
    "train": "prepare the data, train, score the best checkpoint on every test set",
    "prepare": "only train the tokenizer and write the token store",
    "evaluate": "score a run's checkpoint on its test sets, or on others",
    "generate": "translate or summarise: one output line for each input line",
    "average": "average checkpoints of a run into a new one",
    "report": "rank the runs of a sweep",
    "compare": "test whether runs, or files of outputs, differ by more than chance",
}

USAGE = (
    "seq2seq trains sequence-to-sequence models from scratch: translation and summarisation.\n\n"
    "usage: seq2seq VERB [KEY=VALUE ...]\n\n"
    + "\n".join(f"  {verb:<10} {purpose}" for verb, purpose in VERBS.items())
    + "\n\n`seq2seq VERB --help` shows examples and every key; `seq2seq --version` the version.\n"
)


def main() -> NoReturn:
    """Runs the verb of the command line; ends with the exit code that the README documents."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        sys.exit(0)
    verb, rest = arguments[0], arguments[1:]
    if verb in ("-V", "--version"):
        print(f"seq2seq {__version__}")
        sys.exit(0)
    if verb not in VERBS:
        import difflib

        nearest = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; choose one of {', '.join(VERBS)}"
        print(f"seq2seq: error: no such verb: {verb}{hint}", file=sys.stderr)
        sys.exit(2)
    sys.exit(_run(verb, rest))


def _run(verb: str, arguments: list[str]) -> int:
    """Runs one verb and returns its exit code."""
    from seq2seq.errors import Interrupted, TrainingError, UserError
    from seq2seq.signals import interruptible

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    try:
        with interruptible():
            importlib.import_module(f"seq2seq.cli.{verb}").run(arguments)
    except UserError as error:
        if wants_traceback:
            raise
        return _fail(str(error), 2)
    except TrainingError as error:
        return _fail(str(error), 3)
    except Interrupted as stop:
        print(f"seq2seq: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("seq2seq: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our standard output has gone: it has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(f"the disk is full: {error}; what was saved before is good", 3)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"seq2seq: error: {message}", file=sys.stderr)
    return code
