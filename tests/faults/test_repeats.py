"""The same again: what may be different about the second time, and what is refused."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from dying import Change, train
from run_contents import contents, differences

from seq2seq.errors import UserError
from seq2seq.models.objective import Objective
from seq2seq.system.device import deterministic

SAMPLING = ("tokenizer=unigram", "tokenizer.vocab_size=300", "tokenizer.sampling_alpha=0.3")
SHORT = ("trainer.attention_images=1", "trainer.max_steps=5", "trainer.eval_every=3", "trainer.save_every=2",
         "search=greedy", "search.max_length=8", "name=run")  # fmt: skip


@pytest.fixture(scope="session")
def settings(tiny: dict[str, tuple[str, ...]]) -> list[str]:
    return [*tiny["transformer"], *SAMPLING, *SHORT]


def messages(root: Path) -> str:
    return (root / "messages.txt").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_run(tmp_path: Path, settings: list[str], files: list[str]) -> None:
    """Dropout, order, subword sampling: all from the seed, in another process, folder and cache."""
    seeds = {"first": 1, "second": 1, "other": 2}
    for name, seed in seeds.items():
        assert train(tmp_path / name, [*settings, *files, f"seed={seed}"]) == 0, messages(tmp_path / name)
    first, second, other = (contents(tmp_path / name / "run") for name in seeds)
    assert not differences(first, second)
    assert first["metrics.jsonl"] != other["metrics.jsonl"]


def test_changed_data_are_refused_and_moved_data_are_not(
    tmp_path: Path, settings: list[str], corpus: Path, files: list[str]
) -> None:
    """A run that was killed goes on with its data from another place; with two lines exchanged it does not."""
    saved_twice = Change(r"os\.symlink run/checkpoints/last", 2)
    assert train(tmp_path, [*settings, *files], saved_twice) == -9, messages(tmp_path)
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    elsewhere = [each.replace(str(corpus), str(moved)) for each in files]
    source = moved / "train.src"
    before = source.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    source.write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    assert train(tmp_path, [*settings, *elsewhere]) == 2
    refusal = messages(tmp_path).splitlines()[-1]
    assert "data.train.source" in refusal
    assert "data.train.target" not in refusal
    assert "name=NAME" in refusal
    source.write_text(before, encoding="utf-8")
    assert train(tmp_path, [*settings, *elsewhere]) == 0, messages(tmp_path)
    assert "resuming from step 3" in messages(tmp_path)


def test_deterministic_refuses_an_operation_that_is_not() -> None:
    """`put_` without accumulation is one that torch has no deterministic kernel of, on any device."""
    place, value = torch.tensor([1]), torch.tensor([2.0])
    with deterministic(True), pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(3).put_(place, value)
    with deterministic(False):
        assert torch.zeros(3).put_(place, value)[1] == 2


@pytest.mark.parametrize("wanted", [True, False])
def test_training_that_is_deterministic_refuses_such_an_operation(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    """A model that uses one in its forward pass."""
    forward = Objective.forward

    def drifting(self: Objective, *args: Any, **kwargs: Any) -> Any:
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Objective, "forward", drifting)
    refusal = (
        pytest.raises(UserError, match=r"trainer\.deterministic=true is not supported here")
        if wanted
        else nullcontext()
    )
    with refusal:
        train_run(tmp_path, *SHORT, f"trainer.deterministic={str(wanted).lower()}")
    assert (tmp_path / "run" / "results.json").exists() != wanted
    assert not torch.are_deterministic_algorithms_enabled()
