"""Processes forked from one that has imported what commands need, which saves each of them seconds.

They are processes like those that a shell starts, but for the interpreter's own start and the imports.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["seq2seq.cli.train", "seq2seq.pipeline.train", "seq2seq.pipeline.generate", "seq2seq.pipeline.evaluate",
     "seq2seq.pipeline.average", "seq2seq.preflight.check", "sacrebleu", "torch.utils.tensorboard", "matplotlib.figure"]
)  # fmt: skip
_TRACING = "COVERAGE_PROCESS_START"  # names coverage's settings, where somebody asks which lines a test executes


def run(function: Callable[..., None], *arguments: Any, timeout: float = 240.0) -> int:
    """Calls a function in a process of its own.

    Args:
        function: Of a module's top level.
        arguments: What pickles.
        timeout: Seconds.

    Returns:
        The exit code, or minus the signal that ended the process.

    Raises:
        TimeoutError: After the process has been killed.
    """
    return wait(start(function, *arguments), timeout)


def run_ranks(function: Callable[..., None], *arguments: Any, size: int = 2, timeout: float = 240.0) -> list[int]:
    """Calls a function in several processes that know of each other what torchrun would tell them.

    Args:
        function: Of a module's top level.
        arguments: What pickles.
        size: How many processes.
        timeout: Seconds.

    Returns:
        The exit codes.

    Raises:
        TimeoutError: After the processes have been killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        start(function, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
              LOCAL_WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(size)
    ]  # fmt: skip
    return [wait(process, timeout) for process in ranks]


def start(function: Callable[..., None], *arguments: Any, **environment: str) -> BaseProcess:
    """A process that calls a function of a module's top level, with variables of the environment besides the test's."""
    traced = os.environ.pop(_TRACING, None)
    forkserver.ensure_running()  # without tracing: what it imports belongs to no test
    if traced is not None:
        os.environ[_TRACING] = traced
    process = _FORKED.Process(target=_call, args=({**os.environ, **environment}, function, arguments))
    process.start()
    return process


def wait(process: BaseProcess, timeout: float = 240.0) -> int:
    """The exit code of a process, or minus the signal that ended it.

    Raises:
        TimeoutError: After so many seconds; the process has been killed then.
    """
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"process {process.pid} took more than {timeout} s")
    return process.exitcode


def command(arguments: list[str], stdin: Path, stdout: Path, stderr: Path, cwd: Path = Path()) -> None:
    """Turns this process into the command's: with these arguments, files as its streams, and working directory."""
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - multiprocessing gives its processes none
    for target, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), target)
    os.chdir(cwd)
    sys.argv = ["seq2seq", *arguments]
    from seq2seq.cli.main import main

    main()


def _call(environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if _TRACING not in os.environ:
        function(*arguments)
        return
    import coverage

    recording = coverage.Coverage(config_file=os.environ[_TRACING])
    recording.start()
    try:
        function(*arguments)
    finally:
        recording.stop()
        recording.save()
