"""Torch is imported once it is known what there is to compute, and a signal in the meantime is told in one line."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seq2seq.cli.imports import importing

WITHOUT_TORCH = """
import contextlib, os, sys
from seq2seq.cli.main import run_command
with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
    run_command("train", ["--help"])
assert run_command("train", ["optim.lrate=1"]) == 2
assert run_command("train", ["model.dropout=2", "name=wrong"]) == 2
assert run_command("check", ["name="]) == 2
assert run_command("average", []) == 2
for command in ("evaluate", "generate"):
    assert run_command(command, ["run=nowhere"]) == 2
for split in ("train", "valid"):
    with open(f"{split}.src", "w") as file:
        file.write("a b c\\nb c d\\n" * 20)
files = [f"data.{split}.{side}={split}.src" for split in ("train", "valid") for side in ("source", "target")]
assert run_command("prepare", [*files, "tokenizer=bpe", "tokenizer.vocab_size=266", "output_root=out"]) == 0
assert os.listdir("out/.cache")
assert run_command("compare", ["hyp=train.src", "other=valid.src", "ref=train.src", "trials=2", "resamples=2"]) == 0
assert run_command("report", ["folder=out"]) == 2
assert "torch" not in sys.modules
"""

INTERRUPTED = """
import os, signal, sys
from seq2seq.cli.main import main

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.{signal})
            except BaseException:  # libraries forgive failures of what they import
                pass

sys.meta_path.insert(0, Finder())
sys.argv = ["seq2seq", "train", "data.train.source=x", "data.train.target=y"]
main()
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )


def test_what_computes_nothing_imports_no_torch(tmp_path: Path) -> None:
    done = python(WITHOUT_TORCH, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_torch_is_imported_ends_with_one_line(number: signal.Signals, code: int, tmp_path: Path) -> None:
    done = python(INTERRUPTED.format(signal=number.name), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"seq2seq: stopped by {number.name}\n")
    assert not list(tmp_path.iterdir())


def test_only_what_was_imported_is_kept_from_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert not frozen
    with pytest.raises(ModuleNotFoundError), importing():
        import seq2seq.no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    monkeypatch.setitem(sys.modules, "seq2seq.not_yet", sys)
    monkeypatch.delitem(sys.modules, "seq2seq.not_yet")
    with importing():
        sys.modules["seq2seq.not_yet"] = sys
    assert frozen
