"""`trainer.overfit_batches`, and the options of the group `debug`."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.cli import commands
from seq2seq.config import saved
from seq2seq.config.compose import compose, configs_folder
from seq2seq.config.given import unused_keys
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.errors import Interrupted, UserError
from seq2seq.training.config import TrainerConfig

SHORT = ("trainer.eval_examples=0", "search=greedy", "search.max_length=2")
OPTIONS = ("quick", "overfit", "profile")
EXPERIMENTS = sorted(path.stem for path in (configs_folder() / "experiment").iterdir())


def composed(*overrides: str, command: str = "train") -> Config:
    return parse(compose(command, list(overrides)))


def test_the_same_batches_are_trained_on_in_each_epoch(train_run: Any, tmp_path: Path) -> None:
    """A step an epoch, of the same tokens and of falling loss; what follows an interruption is the same."""
    keys = (
        *SHORT, "trainer.overfit_batches=1", "trainer.log_every=1", "trainer.max_steps=40", "optim.lr=0.01",
        "model.dropout=0.1", "trainer.save_every=1", "trainer.keep_last=40", "trainer.label_smoothing=0",
    )  # fmt: skip
    whole = train_run(tmp_path, *keys)
    states = [whole.state(f"step-{step:08d}") for step in whole.checkpoints()]
    assert [state["epoch"] for state in states] == list(range(1, 41))
    assert {state["target_tokens"] / state["step"] for state in states} == {states[0]["target_tokens"]}
    losses = whole.curve("train/loss")
    assert losses[40] < 0.5 * losses[1]
    assert whole.results["valid"]["loss"] > losses[40], "of what was not trained on"
    with pytest.raises(Interrupted):
        train_run(tmp_path / "stopped", *keys, "trainer.stop_after_minutes=1e-9")
    resumed = train_run(tmp_path / "stopped", *keys)
    assert all(torch.equal(weight, whole.weights()[name]) for name, weight in resumed.weights().items())
    assert resumed.curves() == whole.curves()
    with pytest.raises(UserError, match=r"trainer\.overfit_batches: 1 there, 2 now"):
        train_run(tmp_path / "stopped", *keys, "trainer.overfit_batches=2")


def test_check_says_that_a_run_overfits(train_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An epoch has as many steps as batches, and a step as many tokens as they have."""
    reports = []
    for keys in ((), ("trainer.overfit_batches=2",)):
        commands.run("check", train_run.arguments(tmp_path, *SHORT, *keys, "format=json"))
        reports.append(json.loads(capsys.readouterr().out))
    notes = [[d for d in each["diagnostics"] if d["key"] == "trainer.overfit_batches"] for each in reports]
    assert notes[0] == []
    assert [note["severity"] for note in notes[1]] == ["note"]
    assert "no more than the first 2 micro-batches" in notes[1][0]["message"]
    speeds = [each["dry_run"]["speed"] for each in reports]
    assert speeds[0]["steps_per_epoch"] > 2 == speeds[1]["steps_per_epoch"]
    assert 0 < speeds[1]["target_tokens"] < 2 * speeds[0]["target_tokens"]


@pytest.mark.parametrize(("option", "experiment"), list(product(OPTIONS, EXPERIMENTS)))
def test_every_experiment_can_be_debugged(option: str, experiment: str) -> None:
    """In a folder of its own, with no key ignored; the three commands compose the same."""
    config = composed(f"experiment={experiment}", f"debug={option}")
    assert config.name == f"debug/{option}"
    assert unused_keys(config) == {}
    for command in ("check", "prepare"):
        assert composed(f"experiment={experiment}", f"debug={option}", command=command).trainer == config.trainer


def test_the_command_line_wins_over_the_group() -> None:
    config = composed("debug=overfit", "name=mine", "trainer.overfit_batches=3", "trainer.max_steps=70", "data=records")
    assert (config.name, config.trainer.overfit_batches, config.trainer.max_steps) == ("mine", 3, 70)
    assert composed("name=mine").trainer == TrainerConfig(), "and without the group nothing is debugged"


def test_a_run_is_not_resumed_as_another_that_is_debugged(train_run: Any, tmp_path: Path) -> None:
    """Keys of the group count as typed: the run's own values do not replace them."""
    with pytest.raises(Interrupted):
        train_run(tmp_path, *SHORT, "trainer.stop_after_minutes=1e-9")
    with pytest.raises(UserError, match=r"trainer\.overfit_batches: None there, 1 now"):
        train_run(tmp_path, *SHORT, "debug=overfit")


def test_a_quick_run_logs_each_of_a_few_steps_and_ends_complete(train_run: Any, tmp_path: Path) -> None:
    train_run(tmp_path, *debugged("quick"))
    run = train_run.at(tmp_path)
    assert sorted(run.curve("train/loss")) == list(range(1, 11))
    assert sorted(run.curve("valid/loss")) == [10]
    assert run.checkpoints() == [10]
    assert run.results["complete"]


def test_a_profiled_run_records_its_last_steps(train_run: Any, tmp_path: Path) -> None:
    run = train_run(tmp_path, *debugged("profile"))
    assert (run.folder / "profile" / "steps-7-10.json").is_file()


def debugged(option: str) -> list[str]:
    """The group without what `train_run` types itself, which would win over it."""
    config = saved.to_mapping(composed(f"debug={option}"))
    keys = ("trainer.max_steps", "trainer.log_every", "trainer.profile_steps", "trainer.overfit_batches",
            "trainer.eval_examples", "optim.warmup_steps", "optim.schedule", "search.max_length")  # fmt: skip
    typed = []
    for key in keys:
        section, name = key.split(".")
        value = config[section][name]
        typed.append(f"{key}={'null' if value is None else str(value).replace(' ', '')}")
    return [f"debug={option}", *typed, "trainer.eval_every=1000", "trainer.save_every=1000"]


@pytest.mark.slow
def test_the_demo_overfits_to_the_floor_of_label_smoothing(tmp_path: Path) -> None:
    """The least cross-entropy with a smoothed target is the entropy of that target."""
    from seq2seq.cli.train import run

    run(["experiment=demo_translation", "debug=overfit", f"output_root={tmp_path}", "trainer.device=cpu"])
    folder = tmp_path / "debug" / "overfit"
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = {record["step"]: record["value"] for record in map(json.loads, lines) if record["tag"] == "train/loss"}
    config = saved.load(folder / "config.yaml")
    size, smoothing = config.tokenizer.vocab_size, config.trainer.label_smoothing
    rest = smoothing / size
    floor = -(1 - smoothing + rest) * math.log(1 - smoothing + rest) - (size - 1) * rest * math.log(rest)
    assert floor < losses[300] < floor + 0.2
