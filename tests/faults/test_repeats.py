"""The same again: what may be different about the second time, and what is refused."""

import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from dying import Change, start_processes, train
from run_contents import contents, differences

from seq2seq.cli.train import run as run_train
from seq2seq.errors import UserError
from seq2seq.models.objective import Objective
from seq2seq.runtime import deterministic

TINY = (
    "name=run", "model=transformer_tiny", "model.d_model=16", "model.d_ff=32", "model.num_heads=2",
    "model.encoder_layers=1", "model.decoder_layers=1", "tokenizer=unigram", "tokenizer.vocab_size=300",
    "tokenizer.sampling_alpha=0.3", "optim.warmup_steps=2", "metrics.names=[bleu]", "metrics.bootstrap=0",
    "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32", "trainer.attention_images=1",
    "trainer.eval_examples=4", "trainer.log_every=2", "trainer.max_steps=5", "trainer.eval_every=3",
    "trainer.save_every=2", "trainer.batch_tokens=256", "search=greedy", "search.max_length=8",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _processes() -> None:
    start_processes()


def messages(root: Path) -> str:
    return (root / "messages.txt").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_run(tmp_path: Path, backwards: list[str]) -> None:
    """Dropout, order, subword sampling: all from the seed, in another process, folder and cache."""
    seeds = {"first": 1, "second": 1, "other": 2}
    for name, seed in seeds.items():
        assert train(tmp_path / name, [*TINY, *backwards, f"seed={seed}"]) == 0, messages(tmp_path / name)
    first, second, other = (contents(tmp_path / name / "run") for name in seeds)
    assert not differences(first, second)
    assert first["metrics.jsonl"] != other["metrics.jsonl"]


def test_changed_data_are_refused_and_moved_data_are_not(tmp_path: Path, backwards: list[str]) -> None:
    """A run that was killed goes on with its data from another place; with two lines exchanged it does not."""
    saved_twice = Change(r"os\.symlink run/checkpoints/last", 2)
    assert train(tmp_path, [*TINY, *backwards], saved_twice) == -9, messages(tmp_path)
    moved = tmp_path / "moved"
    shutil.copytree(Path(backwards[0].partition("=")[2]).parent, moved)
    elsewhere = [f"{key}={moved / Path(path).name}" for key, _, path in (each.partition("=") for each in backwards)]
    source = moved / "train.src"
    before = source.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    source.write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    assert train(tmp_path, [*TINY, *elsewhere]) == 2
    refusal = messages(tmp_path).splitlines()[-1]
    assert "data.train.source" in refusal
    assert "data.train.target" not in refusal
    assert "name=NAME" in refusal
    source.write_text(before, encoding="utf-8")
    assert train(tmp_path, [*TINY, *elsewhere]) == 0, messages(tmp_path)
    assert "going on from step 3" in messages(tmp_path)


def test_deterministic_refuses_an_operation_that_is_not() -> None:
    """`put_` without accumulation is one that torch has no deterministic kernel of, on any device."""
    place, value = torch.tensor([1]), torch.tensor([2.0])
    with deterministic(True), pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(3).put_(place, value)
    with deterministic(False):
        assert torch.zeros(3).put_(place, value)[1] == 2


@pytest.mark.parametrize("wanted", [True, False])
def test_training_that_is_deterministic_refuses_such_an_operation(
    tmp_path: Path, backwards: list[str], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    """A model that uses one in its forward pass."""
    forward = Objective.forward

    def drifting(self: Objective, *args: Any, **kwargs: Any) -> Any:
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Objective, "forward", drifting)
    overrides = [*TINY, *backwards, f"output_root={tmp_path}", "tokenizer.sampling_alpha=0", "trainer.eval_examples=0"]
    refusal = pytest.raises(UserError, match=r"trainer\.deterministic=true cannot be had") if wanted else nullcontext()
    with refusal:
        run_train([*overrides, f"trainer.deterministic={str(wanted).lower()}"])
    assert (tmp_path / "run" / "results.json").exists() != wanted
    assert not torch.are_deterministic_algorithms_enabled()
