"""What a run may go on with: every key either has to stay as it was, or may change and takes effect."""

import json
import re
import shutil
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.config import parse as parse_module
from seq2seq.config import saved
from seq2seq.config.parse import parse, schema_fields
from seq2seq.config.schema import Config
from seq2seq.errors import Interrupted, UserError
from seq2seq.pipeline.existing_run import require_same_config
from seq2seq.runs.folder import RunFolder
from seq2seq.system.plain_yaml import flatten
from seq2seq.training.config import TrainerConfig

# A new key belongs into one of these two; all others of its section are taken for it in the sections below.
MAY_CHANGE = {
    "name", "output_root", "cache_root", "overwrite", "data.root", "data.source_language", "data.target_language",
    "data.test", *(f"data.{split}.{key}" for split in ("train", "valid")
                   for key in ("path", "source", "target", "source_field", "target_field", "references_field")),
    "trainer.device", "trainer.threads", "trainer.compile", "trainer.checkpoint_activations", "trainer.max_steps",
    "trainer.max_epochs", "trainer.max_minutes", "trainer.stop_after_minutes", "trainer.patience", "trainer.log_every",
    "trainer.save_every", "trainer.save_failure", "trainer.keep_last", "trainer.keep_best",
    "trainer.max_skipped_steps", "trainer.samples", "trainer.attention_images", "trainer.timeout_minutes",
    "trainer.profile_steps", "trainer.eval_every", "trainer.eval_examples",
}  # fmt: skip
STAYS = {
    "seed", "data.max_source_length", "data.max_target_length", "data.on_long", "data.max_length_ratio",
    "data.drop_duplicates", "data.drop_identical", "data.encoding_errors", "data.on_error", "trainer.precision",
    "trainer.batch_tokens",
    "trainer.accumulate", "trainer.label_smoothing", "trainer.coverage_loss_weight", "trainer.coverage_loss_start",
    "trainer.deterministic", "trainer.metric", "trainer.metric_mode",
    "trainer.average", "trainer.average_checkpoints", "trainer.init_from", "trainer.init_tokenizer",
    "trainer.overfit_batches",
}  # fmt: skip
MAY_CHANGE_SECTIONS, STAYS_SECTIONS = ("search", "metrics"), ("model", "tokenizer", "optim")

# Where the next value of the same type does not do: from a run's configuration to that of the command that resumes it.
BEFORE = {
    "tokenizer.sampling_alpha": 0.1, "model.copy": True, "optim.horizon_steps": 500, "data.encoding_errors": "strict",
    "search.max_length": 100, "data.max_source_length": 100, "data.max_target_length": 100,
}  # fmt: skip
AFTER: dict[str, Any] = {
    # What fits together, or stands for no value.
    "tokenizer.kind": "word", "tokenizer.sampling_alpha": 0.0, "tokenizer.source_vectors": "a.vec",
    "tokenizer.target_vectors": "b.vec", "tokenizer.user_symbols": ["<x>"], "tokenizer.sampling_nbest": 5,
    "tokenizer.character_coverage": 0.99, "model.d_model": 512, "model.num_heads": 8, "model.copy": False,
    "model.tie_embeddings": "decoder", "optim.betas": [0.8, 0.9], "optim.horizon_steps": 400,
    "data.max_length_ratio": 3.0, "data.encoding_errors": "replace", "trainer.metric": "valid/bleu",
    "trainer.metric_mode": "max", "trainer.init_tokenizer": "own",
    "trainer.init_from": "outputs/base", "trainer.overfit_batches": 2,
    # What may change.
    "name": "other", "output_root": "elsewhere", "cache_root": "cache", "data.root": "/", "data.source_language": "de",
    "data.target_language": "en", "data.test": {"more": {"path": "more.tsv"}}, "trainer.threads": 2,
    "trainer.max_epochs": 3, "trainer.max_minutes": 2.0, "trainer.stop_after_minutes": 1.0, "trainer.patience": 9,
    "trainer.profile_steps": [1, 2], "search.max_length_ratio": 2.0, "search.seed": 4, "search.n_best": 2,
    "search.beam_size": 6,
    "metrics.names": ["bleu", "ter"], "metrics.bleu_tokenize": "char", "metrics.baselines": ["lead"],
    "metrics.lead_words": 9,
    **{f"data.{split}.{key}": "b" for split in ("train", "valid")
       for key in ("path", "source", "target", "source_field", "target_field", "references_field")},
}  # fmt: skip
FAMILIES = {
    "transformer": ({}, {}),
    "gru": ({"model.attention": "general"}, {"model.attention": "additive", "model.d_model": 128}),
}
FAST = ("trainer.eval_examples=0", "model.dropout=0.2")


def leaves() -> set[str]:
    """All keys but the sections."""
    known = sorted(schema_fields())
    return {key for key in known if not any(other.startswith(f"{key}.") for other in known)}


def stays(key: str) -> bool:
    return key in STAYS or key.split(".")[0] in STAYS_SECTIONS


def parsed(values: dict[str, Any]) -> Config:
    """The configuration of these keys; all others have their defaults."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return parse(tree)


def another(key: str, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(member.value for member in type(value) if member is not value)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.25
    raise AssertionError(f"{key}={value}: give AFTER another value for it")


def changed(family: str, keys: set[str]) -> tuple[Config, Config]:
    """A run's configuration, and one that differs in all of these keys that the family has."""
    before = BEFORE | FAMILIES[family][0] | {"model.family": family}
    after = AFTER | FAMILIES[family][1]
    old = parsed(before)
    values = {key: value for key, value in flatten(asdict(old)).items() if key in keys}
    values.pop("model.family", None)
    new = parsed(before | {key: after[key] if key in after else another(key, value) for key, value in values.items()})
    return old, new


def run_of(config: Config, path: Path) -> RunFolder:
    """A run folder with the configuration."""
    (path / "config.yaml").write_text(saved.to_yaml(config), encoding="utf-8")
    (path / "checkpoints" / "step-00000001").mkdir(parents=True)
    return RunFolder(path)


def test_every_key_is_decided_on() -> None:
    of_sections = {key for key in leaves() if key.split(".")[0] in (*MAY_CHANGE_SECTIONS, *STAYS_SECTIONS)}
    assert leaves() == MAY_CHANGE | STAYS | of_sections
    assert not MAY_CHANGE & STAYS


@pytest.mark.parametrize("family", FAMILIES)
def test_what_has_to_stay_is_refused_by_name(family: str, tmp_path: Path) -> None:
    old, new = changed(family, {key for key in leaves() if stays(key)})
    with pytest.raises(UserError) as caught:
        require_same_config(new, run_of(old, tmp_path))
    message = str(caught.value)
    assert "choose another name (name=NAME), or start over in this folder (overwrite=true)" in message
    assert f"{tmp_path} holds a run with another configuration" in message
    values = flatten(asdict(old))
    wanted = {key for key in values if stays(key)} - {"model.family"}
    assert set(re.findall(r"^  (\S+): .* there, .* now$", message, re.MULTILINE)) == wanted
    assert saved.fingerprints(old) != saved.fingerprints(new)


def test_another_family_of_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.family: 'gru' there, 'transformer' now"):
        require_same_config(parsed({}), run_of(parsed({"model.family": "gru"}), tmp_path))


def test_what_may_change_is_accepted(tmp_path: Path) -> None:
    keys = {key for key in leaves() if not stays(key)}
    old, new = changed("transformer", keys)
    before, after = (flatten(saved.to_mapping(config)) for config in (old, new))
    same = {key for key in before if before[key] == after.get(key)}
    assert not same & keys, "all of them are changed"
    require_same_config(new, run_of(old, tmp_path))
    assert saved.diff(old, new) == {}
    assert saved.fingerprints(old) == saved.fingerprints(new)


@pytest.fixture(scope="module")
def interrupted(train_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first step."""
    out = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        train_run(out, *FAST, "trainer.stop_after_minutes=1e-9")
    return out


def test_a_run_goes_on_with_what_may_change(train_run: Any, interrupted: Path, corpus: Path, tmp_path: Path) -> None:
    """Elsewhere, with other limits, logs, scores and moved files, to the same weights."""
    whole = train_run(tmp_path / "whole", *FAST, "trainer.max_steps=6")
    shutil.copytree(interrupted / "run", tmp_path / "moved" / "again", symlinks=True)
    shutil.copytree(corpus, tmp_path / "data")
    shutil.move(tmp_path / "data" / "train.src", tmp_path / "data" / "renamed")
    train_run(
        tmp_path / "moved", *FAST, "name=again", f"cache_root={tmp_path}/cache", f"data.root={tmp_path}/data",
        "data.train.source=renamed", "data.train.target=train.tgt", "data.valid.source=valid.src",
        "data.valid.target=valid.tgt", "+data.test.more.source=valid.src", "+data.test.more.target=valid.tgt",
        "trainer.max_steps=6", "trainer.max_epochs=5", "trainer.max_minutes=9", "trainer.patience=7",
        "trainer.log_every=3", "trainer.save_every=2", "trainer.keep_last=3", "trainer.keep_best=2",
        "trainer.samples=1", "trainer.max_skipped_steps=5", "trainer.save_failure=warn", "trainer.timeout_minutes=1",
        "trainer.profile_steps=[2,3]",
        "trainer.checkpoint_activations=true", "metrics.names=[chrf]", "search=greedy", "search.max_length=3",
    )  # fmt: skip
    run = type(whole)(tmp_path / "moved" / "again")
    weights, expected = run.weights(), whole.weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    assert sorted(run.curve("train/loss")) == [3, 6]
    assert (whole.checkpoints(), run.checkpoints()) == ([6], [4, 5, 6])
    assert "resuming from step 1" in run.log
    assert set(run.results["test"]) == {"back", "more"}
    assert "chrf" in run.results["test"]["more"]
    assert "bleu" not in run.results["test"]["more"]
    assert max(map(len, run.outputs("more"))) <= 3


def test_a_run_does_not_go_on_with_what_has_to_stay(train_run: Any, interrupted: Path) -> None:
    """Nor where the same was changed in the folder's own copy; what is there stays as it is."""
    config = interrupted / "run" / "config.yaml"
    before = config.read_text(encoding="utf-8")
    refusal = r"trainer\.label_smoothing: 0\.1 there, 0\.2 now\n.*name=NAME.*overwrite=true"
    with pytest.raises(UserError, match=refusal):
        train_run(interrupted, *FAST, "trainer.label_smoothing=0.2")
    assert config.read_text(encoding="utf-8") == before
    config.write_text(before.replace("label_smoothing: 0.1", "label_smoothing: 0.2"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"other content: config\.trainer\.label_smoothing changed since.*name=NAME.*overwrite=true"
    ):
        train_run(interrupted, *FAST, "trainer.label_smoothing=0.2")
    config.write_text(before, encoding="utf-8")
    state = json.loads((interrupted / "run/checkpoints/last/state.json").read_text(encoding="utf-8"))
    assert state["step"] == 1


def test_the_same_command_resumes_a_run_whose_defaults_have_changed(
    train_run: Any, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run keeps its own values of keys that nobody types."""
    whole = train_run(tmp_path / "whole", *FAST, "trainer.max_steps=6")
    shutil.copytree(interrupted / "run", tmp_path / "run", symlinks=True)
    changed_default = partial(TrainerConfig, label_smoothing=0.3)
    monkeypatch.setattr(Config.__dataclass_fields__["trainer"], "default_factory", changed_default)
    parse_module._schema_node.cache_clear()
    try:
        changed = train_run(tmp_path / "new", *FAST, "trainer.max_steps=6")
        resumed = train_run(tmp_path, *FAST, "trainer.max_steps=6")
    finally:
        monkeypatch.undo()
        parse_module._schema_node.cache_clear()
    assert "resuming from step 1" in resumed.log
    weights, expected = resumed.weights(), whole.weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in changed.weights().items())
    assert saved.load(tmp_path / "run" / "config.yaml").trainer.label_smoothing == 0.1
