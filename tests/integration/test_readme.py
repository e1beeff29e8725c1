"""What the README tells people to type, typed."""

import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
Command = Callable[..., subprocess.CompletedProcess[str]]


def blocks(language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks()).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if re.match(r"(echo .*\| )?seq2seq ", line)]


@pytest.fixture(scope="module")
def demo(home: Path, seq2seq: Command) -> Path:
    """A very short run under the name that the README uses, in a folder with the README's files."""
    done = seq2seq(
        "train", "experiment=demo_translation", "model.d_model=32", "model.encoder_size=16", "model.embedding_size=16",
        "trainer.threads=1", "trainer.max_steps=20", "optim.warmup_steps=5", "trainer.eval_examples=10",
        "metrics.bootstrap=20",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (home / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "demo_sentences.en", home / "scripts")
    return home


def test_the_readme_has_commands_of_every_verb() -> None:
    found = {shlex.split(line.split("| ")[-1])[1] for line in commands()}
    assert found >= {"train", "evaluate", "generate", "report"}


@pytest.mark.parametrize("command", [c for c in commands() if " train " in c or "torchrun" in c])
def test_training_commands_compose(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from seq2seq.cli.train import run

    arguments = [word for word in shlex.split(command)[2:] if word not in ("-m",)]
    sweeps = re.compile(r"^(model=.*,|seed=.*,|hydra/sweeper|hydra\.sweeper|.*=interval)")
    with contextlib.suppress(SystemExit):  # Hydra ends here after showing the configuration
        run([argument for argument in arguments if not sweeps.match(argument)] + ["--cfg", "job"])
    assert "trainer:" in capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in commands() if re.search(r"seq2seq (evaluate|generate) ", c)])
def test_commands_on_the_demonstration_run(command: str, demo: Path, seq2seq: Command) -> None:
    stdin = ""
    if command.startswith("echo "):
        stdin = shlex.split(command.split("|")[0])[1] + "\n"
    arguments = shlex.split(command.split("| ")[-1])[1:]
    done = seq2seq(*arguments, stdin=stdin, cwd=demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("\n")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples(
    code: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_paths_of_the_readme_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert path.startswith("http") or (ROOT / path).exists(), path
