"""Saved configurations of runs: writing, reading, comparing."""

import json
from collections.abc import Collection
from dataclasses import asdict
from enum import Enum
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seq2seq.config import rules
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.system.plain_yaml import flatten, read_mapping

# Keys that may change on resume: they do not affect the weights, or only where training ends. Data files are compared
# by content.
MAY_CHANGE_ON_RESUME = (
    "name", "output_root", "cache_root", "overwrite", "search", "metrics",
    "data.root", "data.train", "data.valid", "data.test", "data.source_language", "data.target_language",
    "trainer.device", "trainer.threads", "trainer.compile", "trainer.checkpoint_activations",
    "trainer.max_steps", "trainer.max_epochs", "trainer.max_minutes", "trainer.stop_after_minutes",
    "trainer.patience", "trainer.log_every", "trainer.save_every", "trainer.save_failure", "trainer.keep_last",
    "trainer.keep_best", "trainer.max_skipped_steps", "trainer.samples", "trainer.attention_images",
    "trainer.timeout_minutes", "trainer.profile_steps",
)  # fmt: skip


def to_yaml(config: Config) -> str:
    """Formats all values as YAML with interpolations resolved; ``parse`` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(to_mapping(config)), resolve=True)


def to_mapping(config: Config) -> dict[str, Any]:
    """Converts a configuration to plain mappings, lists, strings and numbers."""
    return asdict(config, dict_factory=lambda pairs: {k: v.name if isinstance(v, Enum) else v for k, v in pairs})


def load(path: Path) -> Config:
    """Reads a saved configuration; keys that it lacks take their defaults.

    Raises:
        UserError: If it is not a valid configuration.
    """
    return parse(read_mapping(path))


def hyper_parameters(config: Config) -> dict[str, Any]:
    """Returns the keys by which runs are compared, flattened: model, optimizer, batch, tokenizer and seed."""
    flat = flatten(to_mapping(config))
    sections = ("model.", "optim.")
    others = ("seed", "tokenizer.kind", "tokenizer.vocab_size", "trainer.batch_tokens", "trainer.accumulate",
              "trainer.label_smoothing", "trainer.precision")  # fmt: skip
    return {key: value for key, value in flat.items() if key.startswith(sections) or key in others}


def unused_keys(config: Config) -> list[str]:
    """Returns one message per key that differs from its default but is ignored because of another key's value."""
    defaults = parse({"model": {"family": config.model.family}})
    return rules.unused_keys(flatten(to_mapping(config)), flatten(to_mapping(defaults)))


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that matter for the weights and differ, with both values."""
    before, after = flatten(to_mapping(old)), flatten(to_mapping(new))
    return {
        key: (before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not _may_change(key)
    }


def fingerprints(config: Config) -> dict[str, str]:
    """Returns the values of the keys that matter for the weights, as JSON by ``config.KEY``.

    Defaults are included, so that later changes of defaults do not alter what a checkpoint was trained with.
    """
    values = flatten(to_mapping(config))
    return {f"config.{key}": json.dumps(value) for key, value in values.items() if not _may_change(key)}


def for_resume(run: Config, current: Config, *, given: Collection[str]) -> Config:
    """Returns the configuration to resume a run with: the run's values of the keys that matter for the weights.

    Defaults and files of `configs/` may have changed since. Keys given on the command line, and those that may change
    on resume, keep their current value; ``diff`` then finds where a given key contradicts the run.

    Args:
        run: The run's saved configuration.
        current: The configuration as composed now.
        given: Keys and sections that the command line sets differently from the command that started or last resumed
            the run.
    """

    def is_given(key: str) -> bool:
        return any(each in ("", key) or key.startswith(f"{each}.") for each in given)

    values, run_values = to_mapping(current), flatten(to_mapping(run))
    if is_given("model.family"):
        run_values = {key: value for key, value in run_values.items() if not key.startswith("model.")}
    else:
        values["model"] = {key: value for key, value in values["model"].items() if is_given(f"model.{key}")}
    for key, value in run_values.items():
        if not _may_change(key) and not is_given(key):
            *sections, last = key.split(".")  # test set names may have dots, but data.test may change
            reduce(getitem, sections, values)[last] = value
    return parse(values)


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE_ON_RESUME)
