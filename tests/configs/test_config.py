"""Every shipped configuration composes, parses and builds; mistakes are named; YAML goes there and back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.config import saved
from seq2seq.config.compose import compose, configs_folder
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model

CONFIGS = configs_folder()


def composed(*overrides: str) -> Config:
    # the run's name comes from Hydra's runtime choices, which `compose` does not have
    return parse(compose("train", ["name=test", *overrides]))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_builds(experiment: str) -> None:
    config = composed(f"experiment={experiment}")
    size = config.tokenizer.vocab_size
    with torch.device("meta"):
        model = build_model(config.model, Vocabulary(size, size, joint=config.tokenizer.joint))
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group, option)
        for group in ("data", "optim", "search", "metrics", "trainer", "model")
        for option in options(group)
    ],
)
def test_every_option_composes(group: str, option: str) -> None:
    composed(f"{group}={option}")


@pytest.mark.parametrize("option", options("tokenizer"))
def test_every_tokenizer_composes(option: str) -> None:
    composed(f"tokenizer={option}", "model.tie_embeddings=decoder")


@pytest.mark.parametrize("experiment", options("experiment"))
def test_yaml_round_trip(experiment: str, tmp_path: Path) -> None:
    config = composed(f"experiment={experiment}", "+data.test.extra.source=a", "+data.test.extra.target=b")
    path = tmp_path / "config.yaml"
    path.write_text(saved.to_yaml(config), encoding="utf-8")
    assert saved.load(path) == config


def test_named_sizes_are_those_of_the_papers() -> None:
    tiny = composed("model=transformer_tiny").model
    assert (tiny.encoder_layers, tiny.decoder_layers, tiny.d_model, tiny.d_ff, tiny.num_heads) == (4, 4, 128, 256, 4)
    small = composed("model=transformer_small").model
    assert (small.encoder_layers, small.decoder_layers, small.d_model, small.d_ff) == (3, 3, 256, 1024)
    big = composed("model=transformer_big").model
    assert (big.encoder_layers, big.d_model, big.d_ff, big.num_heads) == (6, 1024, 4096, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainer": {"max_step": 3}}, "did you mean trainer.max_steps"),
        ({"optimm": {}}, "did you mean optim"),
        ({"data": {"test": {"news": {"sorce": "a"}}}}, "did you mean data.test.news.source"),
        ({"model": {"_target_": "os.system"}}, "model._target_ is not a configuration key"),
        ({"model": {"family": "rnn"}}, "model.family=rnn"),
        ({"trainer": {"max_steps": "many"}}, "trainer.max_steps"),
        ({"model": {"family": "transformer", "d_model": 250, "num_heads": 8}}, "model.d_model=250"),
        ({"trainer": {"label_smoothing": 1.0}}, "trainer.label_smoothing=1.0"),
        ({"trainer": {"batch_tokens": -1}}, "trainer.batch_tokens=-1"),
        ({"trainer": {"metric": "valid/blue"}}, "trainer.metric=valid/blue"),
        ({"trainer": {"max_steps": None}}, "would never end"),
        ({"optim": {"warmup_steps": 50_000}}, "optim.warmup_steps=50000"),
        ({"tokenizer": {"joint": False}}, "model.tie_embeddings=all"),
        ({"tokenizer": {"joint": False}, "model": {"copy": True}}, "model.copy=true copies source tokens"),
        ({"model": {"family": "gru", "coverage": True, "attention": "general"}}, "not general"),
        ({"model": {"coverage": True}}, "model.coverage is a key of the gru family only"),
        (
            {"model": {"family": "gru", "copy_attention": "own"}},
            "model.copy_attention is a key of the transformer family",
        ),
        ({"trainer": {"coverage_loss_weight": -1.0}}, "trainer.coverage_loss_weight=-1.0"),
        ({"tokenizer": {"kind": "word", "sampling_alpha": 0.1}}, "sampling_alpha"),
        ({"tokenizer": {"kind": "word", "source_vectors": "a", "target_vectors": "b"}}, "model.tie_embeddings=all"),
        (
            {"model": {"positions": "learned", "max_positions": 100}},
            "data.max_source_length=256 is above model.max_positions=100",
        ),
        (
            {"model": {"positions": "learned"}, "search": {"max_length": 2000}},
            "search.max_length=2000 is above model.max_positions=1024",
        ),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        parse(values)


def test_a_saved_configuration_cannot_interpolate(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: ${oc.env:HOME}\n", encoding="utf-8")
    with pytest.raises(UserError, match="no interpolations"):
        saved.load(path)


def test_diff_names_what_matters_and_leaves_limits_free() -> None:
    old = parse({})
    new = parse({"trainer": {"max_steps": 7, "device": "cpu"}, "optim": {"lr": 0.5}, "search": {"beam_size": 1}})
    assert saved.diff(old, new) == {"optim.lr": (0.001, 0.5)}


def test_keys_that_an_old_configuration_lacks_take_their_defaults() -> None:
    values = saved.to_mapping(parse({}))
    del values["trainer"]["samples"]
    assert parse(values).trainer.samples == parse({}).trainer.samples


def test_a_metric_of_outputs_needs_an_example_to_decode() -> None:
    watched = {"metric": "valid/bleu", "eval_examples": 1}
    assert parse({"trainer": watched}).trainer.eval_examples == 1
    with pytest.raises(UserError, match=r"trainer\.metric=valid/bleu needs decoded examples"):
        parse({"trainer": watched | {"eval_examples": 0}})


def test_fingerprints_hold_the_values_of_all_keys_that_matter() -> None:
    """Defaults too, so that a default may change later; limits and places are not among them."""
    found = saved.fingerprints(parse({"optim": {"lr": 0.01}, "trainer": {"max_steps": 7}}))
    assert found["config.optim.lr"] == "0.01"
    assert found["config.trainer.label_smoothing"] == "0.1"
    assert found["config.seed"] == "1"
    assert found["config.tokenizer.user_symbols"] == "[]"
    assert not {"config.trainer.max_steps", "config.output_root", "config.search.beam_size"} & found.keys()
