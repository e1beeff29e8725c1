"""A tiny corpus and a run trained on it by the real command, shared by the tests of the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import processes
import pytest

SETTINGS = (
    "model.dropout=0", "optim.lr=0.01", "optim.warmup_steps=5", "metrics.names=[bleu,chrf]", "metrics.bootstrap=20",
    "trainer.batch_tokens=512", "trainer.max_steps=30", "trainer.eval_every=15", "trainer.save_every=10",
    "trainer.log_every=10", "trainer.attention_images=1", "trainer.eval_examples=500", "search.max_length=20",
)  # fmt: skip
FILES = (
    "data.train.source=train.en", "data.train.target=train.de", "data.valid.source=valid.en",
    "data.valid.target=valid.de", "+data.test.news.source=news.en", "+data.test.news.target=news.de",
)  # fmt: skip

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's, with a space in its name and digits spelt out as a corpus."""
    folder = tmp_path_factory.mktemp("a user's home")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    count = 0
    for split, size in (("train", 120), ("valid", 12), ("news", 10)):
        pairs = []
        for _ in range(size):
            count = (count * 37 + 11) % 997
            digits = str(count)
            pairs.append((digits, " ".join(words[int(digit)] for digit in digits)))
        (folder / f"{split}.en").write_text("".join(f"{a}\n" for a, _ in pairs), encoding="utf-8")
        (folder / f"{split}.de").write_text("".join(f"{b}\n" for _, b in pairs), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def seq2seq(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs the command in the user's folder."""
    streams = tmp_path_factory.mktemp("streams")

    def run(*arguments: str, cwd: Path = home, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
        given, out, err = (streams / name for name in ("stdin", "stdout", "stderr"))
        given.write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        out.write_bytes(b"")
        err.write_bytes(b"")
        code = processes.run(processes.command, list(arguments), given, out, err, cwd)
        return subprocess.CompletedProcess(arguments, code, out.read_bytes().decode(), err.read_bytes().decode())

    return run


@pytest.fixture(scope="session")
def interpreter(home: Path) -> Command:
    """Runs the command in the user's folder by an interpreter of its own, which reads variables at its start."""

    def run(*arguments: str, cwd: Path = home, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "seq2seq", *arguments], cwd=cwd, capture_output=True, text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, env=os.environ | environment, timeout=240, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def overrides(tiny: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Of a run of a few seconds on the user's files."""
    return (*tiny["gru"], *SETTINGS, *FILES)


@pytest.fixture(scope="session")
def trained(home: Path, seq2seq: Command, overrides: tuple[str, ...]) -> Path:
    """The run folder of a short training run."""
    done = seq2seq("train", "name=trained", *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "outputs" / "trained"
