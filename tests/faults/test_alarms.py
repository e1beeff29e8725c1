"""A run that wastes its work says so once, whoever resumes it; the signs: tests/unit/training/test_alarms.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq.cli.main import run_command


@pytest.fixture
def warnings(
    tiny: dict[str, tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[int, int], list[str]]:
    """Trains up to a step with a budget of tokens, or goes on to it, and returns the warnings that were shown."""
    lines = ["a b", "b c", "c d", "a c", "b d"] * 8 + ["long " * 40]
    (tmp_path / "text").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = [f"data.{split}.{side}=text" for split in ("train", "valid") for side in ("source", "target")]
    settings = ("optim.warmup_steps=1", "trainer.eval_examples=0", "trainer.log_every=1", "name=padded")

    def shown(max_steps: int, batch_tokens: int = 100_000) -> list[str]:
        arguments = [*tiny["transformer"], f"output_root={tmp_path}", f"data.root={tmp_path}", *files, *settings]
        limits = [f"trainer.max_steps={max_steps}", f"trainer.batch_tokens={batch_tokens}"]
        assert run_command("train", [*arguments, *limits]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if ": since step " in line]

    return shown


def test_batches_of_padding_are_said_once_and_not_again_after_a_resume(warnings: Callable[..., list[str]]) -> None:
    assert warnings(2) == []
    (line,) = warnings(5)
    assert line.startswith("step 3: since step 1 more than half of each batch is padding: lower trainer.batch_tokens ")
    assert warnings(8) == []


def test_the_remedy_helps(warnings: Callable[..., list[str]]) -> None:
    assert warnings(8, batch_tokens=210) == []
