"""Runs `seq2seq train` in a process that kills itself at a chosen moment; imported by the processes that tests start.

Moments are changes to the file system, which CPython announces before it makes them (PEP 578), or calls of a
function: neither needs anything of the program under test.
"""

import importlib
import itertools
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PATHS = {  # where an audit event's arguments are paths, each with the folder handle that it is relative to
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "open": ((0, None),),
}


@dataclass(frozen=True)
class Change:
    """Death right before a change to the file system.

    Attributes:
        pattern: A regular expression that the change's text is searched for, such as
            ``os.rename .*step-00000008`` for a rename to or from a name like this; paths are relative to the test's.
        number: Which of the changes that match, from 1.
    """

    pattern: str
    number: int = 1


@dataclass(frozen=True)
class Call:
    """Death right before a call.

    Attributes:
        function: Its module and name, separated by a colon; the name may have dots.
        number: Which call, from 1.
    """

    function: str
    number: int = 1


Death = Change | Call | None


def train(root: Path, arguments: list[str], death: Death = None) -> int:
    """Trains in a process of its own.

    Args:
        root: Output root; messages go to ``messages.txt`` there.
        arguments: Of `seq2seq train`.
        death: When the process gets SIGKILL, from itself.

    Returns:
        The exit code, or minus the signal that ended the process.
    """
    root.mkdir(parents=True, exist_ok=True)
    return processes.run(_train, root, [*arguments, f"output_root={root}"], death)


def _train(root: Path, arguments: list[str], death: Death) -> None:
    if isinstance(death, Call):
        _die_at_call(death)
    elif death is not None:
        _die_at_change(death, root)
    messages = root / "messages.txt"
    processes.command(["train", *arguments], Path(os.devnull), messages, messages)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_change(death: Change, root: Path) -> None:
    calls = itertools.count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _PATHS or (event == "open" and not arguments[2] & _WRITING):
            return
        paths = [_whole(arguments[at], arguments[handle] if handle else -1) for at, handle in _PATHS[event]]
        if not all(path.startswith(f"{root}/") for path in paths):
            return
        change = " ".join([event, *(path.removeprefix(f"{root}/") for path in paths)])
        if re.search(death.pattern, change) and next(calls) == death.number:
            _die()

    sys.addaudithook(hook)


def _whole(path: Any, handle: int) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        return ""  # a file descriptor
    folder = "." if handle < 0 else os.readlink(f"/proc/self/fd/{handle}")
    return os.path.abspath(os.path.join(folder, os.fsdecode(path)))


def _die_at_call(death: Call) -> None:
    module, _, name = death.function.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, last)
    calls = itertools.count(1)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == death.number:
            _die()
        return original(*args, **kwargs)

    setattr(owner, last, deadly)
