"""Standard streams, terminals and signals: whatever the caller does to them, results are whole and nothing crashes."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]
LATER = ("torch._C", "sentencepiece", "matplotlib")  # the last two once the command is at work
SEQ2SEQ = f"{sys.executable} -m seq2seq"


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, streams: str) -> None:
    """Also that the number of a closed stream does not go to a file: nothing is printed into another stream."""
    done = shell(f"{SEQ2SEQ} --version {streams}", tmp_path)
    assert done.returncode == 0
    assert done.stdout == ("" if ">&-" in streams.replace("2>&-", "") else "seq2seq 0.1.0\n")
    assert done.stderr == ""
    done = shell(f"{SEQ2SEQ} trian {streams}", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == (0 if "2>&-" in streams else 1)


def test_streams_that_nobody_reads_and_full_ones(tmp_path: Path) -> None:
    reader_has_gone = "; exit ${PIPESTATUS[0]}"
    done = shell(f"{SEQ2SEQ} --help | true{reader_has_gone}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"{SEQ2SEQ} trian 2>&1 >/dev/null | true{reader_has_gone}", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    done = shell(f"{SEQ2SEQ} --help >/dev/full", tmp_path)
    assert done.returncode == 3
    assert "standard output: No space left" in done.stderr
    assert done.stderr.count("\n") == 1
    done = shell(f"{SEQ2SEQ} trian 2>/dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "streams"), [("generate", "2>&-"), ("generate", "2>/dev/full"), ("evaluate", "")])
def test_results_are_whole_on_the_poorest_terminal(home: Path, trained: Path, command: str, streams: str) -> None:
    poor = {
        "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1",
    }  # fmt: skip
    extra = "input=news.en" if command == "generate" else "metrics.names=[bleu]"
    done = shell(f"{SEQ2SEQ} {command} run=outputs/trained {extra} {streams}", home, **poor)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    if command == "generate":
        assert done.stdout == (trained / "generations" / "news.txt").read_text()
    else:
        assert "bleu" in done.stdout


def on_terminal(arguments: list[str], cwd: Path, **environment: str) -> tuple[int, str]:
    """Runs the command on a terminal 20 columns wide; returns its exit code and all that the terminal got."""
    ours, theirs = pty.openpty()
    got = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                got.extend(chunk)
        except OSError:  # the last writer has gone
            pass

    process = subprocess.Popen(
        [sys.executable, "-m", "seq2seq", *arguments], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "20", **environment},
    )  # fmt: skip
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(timeout=120)
    reader.join(timeout=20)
    os.close(ours)
    return code, got.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1", "TERM": "xterm-256color"}, {"TERM": "dumb"}])
def test_a_narrow_terminal_gets_no_colours(home: Path, overrides: tuple[str, ...], environment: dict[str, str]) -> None:
    name = f"narrow-{environment['TERM']}"
    code, shown = on_terminal(["train", f"name={name}", *overrides, "trainer.max_steps=6"], home, **environment)
    assert code == 0, shown
    assert "\x1b" not in shown
    assert "run folder:" in shown
    if environment["TERM"] == "dumb":
        assert not re.search(r"\r[^\r\n]", shown)
    assert "\x1b" not in (home / "outputs" / name / "train.log").read_text()


def interrupted(arguments: list[str], cwd: Path, *, at_import_of: str) -> subprocess.CompletedProcess[str]:
    """Sends Ctrl-C when Python reports the import of a module; what it reports of imports is left out."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "seq2seq", *arguments], cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stdout is not None
    told, sent = [], False
    for line in process.stderr:
        if not line.startswith("import time:"):
            told.append(line)
        elif not sent and line.rpartition("|")[2].strip() == at_import_of:
            process.send_signal(signal.SIGINT)
            sent = True
    assert sent, f"{at_import_of} was not imported"
    return subprocess.CompletedProcess(arguments, process.wait(timeout=60), process.stdout.read(), "".join(told))


@pytest.mark.parametrize(
    "module",
    ["seq2seq.errors", "numpy._core.multiarray", "hydra", *(pytest.param(m, marks=pytest.mark.slow) for m in LATER)],
)
def test_ctrl_c_while_starting_is_one_line(home: Path, overrides: tuple[str, ...], module: str) -> None:
    done = interrupted(["train", "name=early", *overrides], home, at_import_of=module)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert re.match(r"seq2seq: (stopped by SIGINT|error: interrupted)", done.stderr.splitlines()[-1])
    if module not in LATER[1:]:
        assert done.stderr.count("\n") == 1


def test_ctrl_c_while_generating_is_one_line_and_leaves_nothing(home: Path, trained: Path) -> None:
    """The input is a named pipe: opened for writing once the command reads it, by then it is at work."""
    os.mkfifo(home / "pipe")
    arguments = ["generate", "run=outputs/trained", "input=pipe", "output=never.txt"]
    process = subprocess.Popen(
        [sys.executable, "-m", "seq2seq", *arguments], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with (home / "pipe").open("w") as pipe:
        pipe.write("12\n")
        pipe.flush()
        process.send_signal(signal.SIGINT)
    shown, told = process.communicate(timeout=60)  # the end of the input wakes it up if the signal came just too early
    assert process.returncode == 130, told
    assert shown == ""
    assert told.splitlines()[-1] == "seq2seq: stopped by SIGINT"
    assert "Traceback" not in told
    assert not [path.name for path in home.iterdir() if "never.txt" in path.name]


def test_a_second_signal_leaves_without_saving(home: Path, overrides: tuple[str, ...]) -> None:
    """The two come together: nothing waits for the end of the step."""
    arguments = ["train", "name=twice", *overrides, "trainer.max_steps=100000"]
    arguments += ["trainer.eval_every=100000", "trainer.save_every=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "seq2seq", *arguments], cwd=home, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGSTOP)  # so that both are there when it goes on
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (75, 143)  # threads may take them in either order
    assert not (home / "outputs/twice/checkpoints/last").exists()
