"""What a resumed run takes from its folder, and what from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.pipeline.resume import restore_run_values
from seq2seq.runs.folder import RunFolder

RUN = {
    "optim": {"lr": 0.5, "eps": 1e-5, "betas": [0.5, 0.6]},
    "trainer": {"max_steps": 7},
    "data": {"test": {"a": {"path": "a.tsv"}}},
}
COMMAND = "seq2seq train model=transformer_small optim.lr=0.5 optim.betas=[0.5,0.6] 'name=a run' trainer.max_steps=7"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run with another learning rate and epsilon than today's defaults; only the rate was given."""
    folder = RunFolder(tmp_path)
    folder.config.write_text(saved.to_yaml(parse(RUN)), encoding="utf-8")
    folder.provenance.write_text(json.dumps({"command": COMMAND}), encoding="utf-8")
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    return folder


def resumed(folder: RunFolder, now: dict[str, Any], *overrides: str) -> Config:
    return restore_run_values(parse(now), folder, overrides)


def test_keys_that_nobody_gives_keep_the_values_of_the_run(folder: RunFolder) -> None:
    found = resumed(folder, {"trainer": {"patience": 3}}, "model=transformer_small", "trainer.patience=3")
    assert (found.optim.lr, found.optim.eps) == (0.5, 1e-5)
    assert saved.diff(saved.load(folder.config), found) == {}


def test_keys_that_may_change_are_those_of_now(folder: RunFolder) -> None:
    found = resumed(folder, {"trainer": {"patience": 3}, "data": {"test": {"b.2": {"path": "b.tsv"}}}})
    assert (found.trainer.patience, found.trainer.max_steps) == (3, parse({}).trainer.max_steps)
    assert list(found.data.test) == ["b.2"]


def test_what_is_given_now_overrides_the_run(folder: RunFolder) -> None:
    found = resumed(folder, {"optim": {"lr": 0.1}}, "optim.lr=0.1")
    assert saved.diff(saved.load(folder.config), found) == {"optim.lr": (0.5, 0.1)}


def test_one_key_of_the_model_that_is_given_now_overrides_only_itself(folder: RunFolder) -> None:
    found = resumed(folder, {"model": {"dropout": 0.4, "d_ff": 99}}, "model.dropout=0.4")
    assert saved.diff(saved.load(folder.config), found) == {"model.dropout": (0.1, 0.4)}


@pytest.mark.parametrize("override", ["optim=adamw", "experiment=large", "+optim.eps=1e-8", "~optim"])
def test_a_choice_that_is_given_now_sets_all_its_keys(folder: RunFolder, override: str) -> None:
    found = resumed(folder, {}, override)
    assert "optim.eps" in saved.diff(saved.load(folder.config), found)


@pytest.mark.parametrize("override", ["model=transformer_small", "optim.lr=0.5", "optim.betas=[0.5,0.6]", "name=a run"])
def test_what_the_command_had_before_brings_nothing(folder: RunFolder, override: str) -> None:
    assert saved.diff(saved.load(folder.config), resumed(folder, {}, override)) == {}


def test_a_job_of_the_same_sweep_was_given(folder: RunFolder) -> None:
    command = "seq2seq train -m model=gru_tiny,transformer_small optim=adam,adamw"
    folder.provenance.write_text(json.dumps({"command": command}), encoding="utf-8")
    assert saved.diff(saved.load(folder.config), resumed(folder, {}, "model=transformer_small", "optim=adam")) == {}
    assert saved.diff(saved.load(folder.config), resumed(folder, {}, "optim=sgd"))


def test_another_family_of_models_stands_against_the_run(folder: RunFolder) -> None:
    found = resumed(folder, {"model": {"family": "gru"}}, "model=gru_tiny")
    assert saved.diff(saved.load(folder.config), found)["model.family"] == ("transformer", "gru")


def test_a_family_that_nobody_chose_is_that_of_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text(saved.to_yaml(parse({"model": {"family": "gru", "d_model": 64}})), encoding="utf-8")
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    found = resumed(folder, {}, "optim.lr=0.001")
    assert (found.model.family, found.model.d_model) == ("gru", 64)


@pytest.mark.parametrize("provenance", ["", "[]", "{}", '{"command": 3}', '{"command": "a \'"}'])
def test_without_the_command_of_the_run_all_overrides_are_new(folder: RunFolder, provenance: str) -> None:
    folder.provenance.write_text(provenance, encoding="utf-8")
    assert resumed(folder, {}, "name=a run").optim.lr == 0.5
    assert "optim.eps" in saved.diff(saved.load(folder.config), resumed(folder, {}, "optim=adam"))


def test_nothing_is_taken_from_a_run_that_is_started_over_or_is_not_there(folder: RunFolder, tmp_path: Path) -> None:
    assert resumed(folder, {"overwrite": True}).optim.lr == parse({}).optim.lr
    assert resumed(RunFolder(tmp_path / "new"), {}).optim.lr == parse({}).optim.lr
