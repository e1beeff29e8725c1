from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.gru_config import GRUConfig
from seq2seq.pipeline import load
from seq2seq.pipeline.build import copy_weights, vocabulary
from seq2seq.runs.folder import RunFolder
from seq2seq.system.config import Device
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import load_tokenizers, train_tokenizers


def model(**changes: Any) -> Seq2Seq:
    return build_model(GRUConfig(d_model=8, embedding_size=8, encoder_size=4, **changes), Vocabulary(9, 9, joint=True))


def test_models_and_tokenizers_agree_on_reserved_ids() -> None:
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=20, joint=False)
    found = vocabulary(train_tokenizers(lambda: iter(["a b"]), lambda: iter(["a b c"]), config, seed=1))
    assert found == Vocabulary(6, 7, joint=False, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID)


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        ({}, {"copy": True}, "it has no output.gate.bias, which this model has, and 1 more differ; use"),
        ({"coverage": True}, {}, "it has score.coverage, which this model does not have; use"),
        (
            {"coverage": True, "attention_size": 8},
            {"coverage": True},
            "score.coverage has shape .8,. there and .256,. here",
        ),
    ],
    ids=["absent", "superfluous", "other shape"],
)
def test_weights_of_another_model_are_refused_by_name(given: Any, own: Any, message: str) -> None:
    weights = model(**given).state_dict()
    with pytest.raises(UserError, match=message):
        copy_weights(weights, model(**own), origin="outputs/other")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Returns the configuration with which `load` builds the generator of a run, given overrides."""
    run = {"search": {"min_length": 3}, "trainer": {"device": "mps"}, "data": {"test": {"news": {"path": "a.tsv"}}}}
    RunFolder(tmp_path).config.write_text(saved.to_yaml(parse(run)), encoding="utf-8")
    configs: list[Config] = []
    monkeypatch.setattr(load, "build_generator", lambda folders, config, **_: configs.append(config))

    def opened(*overrides: str) -> Config:
        load.load(tmp_path, overrides=overrides)
        return configs.pop()

    return opened


def test_overrides_of_load_are_those_of_the_command_line(loaded: Callable[..., Config]) -> None:
    assert (loaded().search.min_length, loaded().search.beam_size, list(loaded().data.test)) == (3, 5, ["news"])
    assert loaded().trainer.device is Device.auto, "the machine may be another one"
    assert loaded("+search=greedy", "search.n_best=1").search.beam_size == 1
    assert loaded("++search.beam_size=7", "trainer.device=cpu").search.beam_size == 7
    assert loaded('data.train.source_field="a, b=c"').data.train.source_field == "a, b=c"
    assert loaded("data.train.source_field='[d]'").data.train.source_field == "[d]"
    for unused in ("~data.test.news", "+data.test.more.source=a", "metrics.names=[chrf, bleu]"):
        with pytest.raises(UserError, match="has no effect on `seq2seq generate`"):
            loaded(unused)
    assert loaded("search.max_length_ratio=null").search.max_length_ratio is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.beam_sise=1", r"search.beam_sise is not a configuration key; did you mean search.beam_size\?"),
        ("data.root=(a", r"cannot read the override 'data.root=\(a': a value with .* needs inner quotes"),
        ("data.root=a, b", "quote the value: key='value1,value2'"),
        ("search.beam_size=many", "many"),
        ("search.beam_size=0", "search.beam_size=0 must be at least 1"),
        ("format=jsonl", "format is not a configuration key"),
    ],
)
def test_a_wrong_override_of_load_is_named(loaded: Callable[..., Config], override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(override)


def test_load_works_inside_another_hydra_application(loaded: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: 1\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert loaded("search.beam_size=2").search.beam_size == 2
        assert hydra.compose("mine") == {"a": 1}


def test_the_tokenizer_of_a_run_is_loaded_once(train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_run(tmp_path, "trainer.max_steps=1", "trainer.eval_every=1", "optim.warmup_steps=1").folder
    shutil.copytree(run, tmp_path / "other")
    folders: list[Path] = []
    monkeypatch.setattr(load, "load_tokenizers", lambda folder: folders.append(folder) or load_tokenizers(folder))
    load.load([run, tmp_path / "other"], overrides=["trainer.device=cpu"])
    assert folders == [run / "tokenizer", tmp_path / "other" / "tokenizer"]
