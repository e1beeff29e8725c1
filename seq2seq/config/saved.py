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

from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.system.plain_yaml import flatten, read_mapping
from seq2seq.training.optim_config import Schedule

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
_MAY_CHANGE_UNLESS_PLATEAU = ("trainer.eval_every", "trainer.eval_examples")  # there they decide on the learning rate
_COMPARED_BY_CONTENT = "trainer.init_from"  # a path: checkpoints have the sha256 of its weights


def to_yaml(config: Config) -> str:
    """Formats all values as YAML with interpolations resolved; ``parse`` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(to_mapping(config)), resolve=True)


def to_mapping(config: Any) -> dict[str, Any]:
    """Converts a configuration, or one of its sections, to plain mappings, lists, strings and numbers."""
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


def may_change(config: Config) -> tuple[str, ...]:
    """Returns the keys and sections that may change when a run is resumed."""
    evaluation = () if config.optim.schedule is Schedule.plateau else _MAY_CHANGE_UNLESS_PLATEAU
    return (*MAY_CHANGE_ON_RESUME, *evaluation)


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that matter for the weights and differ, with both values."""
    before, after = flatten(to_mapping(old)), flatten(to_mapping(new))
    return {
        key: (before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not is_in(key, may_change(new))
        and not (key == _COMPARED_BY_CONTENT and before.get(key) and after.get(key))
    }


def fingerprints(config: Config) -> dict[str, str]:
    """Returns the values of the keys that matter for the weights, as JSON by ``config.KEY``.

    Defaults are included, so that later changes of defaults do not alter what a checkpoint was trained with.
    """
    values = flatten(to_mapping(config))
    return {
        f"config.{key}": json.dumps(value)
        for key, value in values.items()
        if not is_in(key, [*may_change(config), _COMPARED_BY_CONTENT])
    }


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
    values, run_values = to_mapping(current), flatten(to_mapping(run))
    if is_in("model.family", given):
        run_values = {key: value for key, value in run_values.items() if not key.startswith("model.")}
    else:
        values["model"] = {key: value for key, value in values["model"].items() if is_in(f"model.{key}", given)}
    for key, value in run_values.items():
        if not is_in(key, [*may_change(current), *given]):
            *sections, last = key.split(".")  # test set names may have dots, but data.test may change
            reduce(getitem, sections, values)[last] = value
    return parse(values)


def is_in(key: str, sections: Collection[str]) -> bool:
    """Returns whether a key is one of these, or in one of these sections."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)
