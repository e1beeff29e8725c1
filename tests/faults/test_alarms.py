"""A run that wastes its work says so once, whoever resumes it; tests/unit/test_alarms.py has the signs themselves."""

from pathlib import Path

import pytest

from seq2seq.cli.main import _run

SETTINGS = (
    "model=transformer_tiny", "model.d_model=16", "model.d_ff=32", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=1", "tokenizer=char", "optim.warmup_steps=1", "metrics.names=[chrf]", "metrics.bootstrap=0",
    "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32", "trainer.eval_examples=0",
    "trainer.log_every=1", "search.max_length=2", "name=padded",
)  # fmt: skip


def warnings(
    folder: Path, capsys: pytest.CaptureFixture[str], *, max_steps: int, batch_tokens: int = 100_000
) -> list[str]:
    files = [f"data.{split}.{side}=text" for split in ("train", "valid") for side in ("source", "target")]
    arguments = [f"output_root={folder}", f"data.root={folder}", *files, *SETTINGS, f"trainer.max_steps={max_steps}"]
    assert _run("train", [*arguments, f"trainer.batch_tokens={batch_tokens}"]) == 0
    return [line for line in capsys.readouterr().err.splitlines() if ": since step " in line]


def test_batches_of_padding_are_said_once_and_not_again_after_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a b", "b c", "c d", "a c", "b d"] * 8 + ["long " * 40]
    (tmp_path / "text").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert warnings(tmp_path, capsys, max_steps=2) == []
    (line,) = warnings(tmp_path, capsys, max_steps=5)
    assert line.startswith("step 3: since step 1 more than half of each batch is padding: lower trainer.batch_tokens ")
    assert warnings(tmp_path, capsys, max_steps=8) == []


def test_the_remedy_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a b", "b c", "c d", "a c", "b d"] * 8 + ["long " * 40]
    (tmp_path / "text").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert warnings(tmp_path, capsys, max_steps=8, batch_tokens=210) == []
