"""Configurations as runs keep them: written, read, compared."""

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
from seq2seq.config.rules import flatten
from seq2seq.config.schema import Config
from seq2seq.system.plain_yaml import read_mapping

# A run may go on with other values of these: limits, logging, places. What data there is, is compared by content.
MAY_CHANGE_ON_RESUME = (
    "name", "output_root", "cache_root", "overwrite", "search", "metrics",
    "data.root", "data.train", "data.valid", "data.test", "data.source_language", "data.target_language",
    "trainer.device", "trainer.threads", "trainer.compile", "trainer.checkpoint_activations",
    "trainer.max_steps", "trainer.max_epochs", "trainer.max_minutes", "trainer.stop_after_minutes",
    "trainer.patience", "trainer.log_every", "trainer.save_every", "trainer.save_failure", "trainer.keep_last",
    "trainer.keep_best", "trainer.max_skipped_steps", "trainer.samples", "trainer.attention_images",
    "trainer.timeout_minutes",
)  # fmt: skip


def to_yaml(config: Config) -> str:
    """All values as YAML, interpolations resolved; ``parse`` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(to_mapping(config)), resolve=True)


def to_mapping(config: Config) -> dict[str, Any]:
    """All values of a configuration as ``parse`` gives it, as plain mappings, lists, strings and numbers."""
    return asdict(config, dict_factory=lambda pairs: {k: v.name if isinstance(v, Enum) else v for k, v in pairs})


def load(path: Path) -> Config:
    """Reads a saved configuration; keys that it lacks take their defaults.

    Raises:
        UserError: If it is no valid configuration.
    """
    return parse(read_mapping(path))


def hyper_parameters(config: Config) -> dict[str, Any]:
    """The keys that runs are compared by, flattened: model, optimizer, batch, tokenizer and seed."""
    flat = flatten(to_mapping(config))
    sections = ("model.", "optim.")
    others = ("seed", "tokenizer.kind", "tokenizer.vocab_size", "trainer.batch_tokens", "trainer.accumulate",
              "trainer.label_smoothing", "trainer.precision")  # fmt: skip
    return {key: value for key, value in flat.items() if key.startswith(sections) or key in others}


def unused_keys(config: Config) -> list[str]:
    """A line for each key that differs from its default and that nothing reads, because of another key's value."""
    defaults = parse({"model": {"family": config.model.family}})
    return rules.unused_keys(flatten(to_mapping(config)), flatten(to_mapping(defaults)))


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that matter for the weights and differ, with both values."""
    before, after = flatten(to_mapping(old)), flatten(to_mapping(new))
    return {
        key: (before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not _is_free(key)
    }


def fingerprints(config: Config) -> dict[str, str]:
    """The values of the keys that matter for the weights, as JSON by ``config.KEY``.

    All of them, defaults too: what a checkpoint was trained with is known whatever becomes of the defaults.
    """
    values = flatten(to_mapping(config))
    return {f"config.{key}": json.dumps(value) for key, value in values.items() if not _is_free(key)}


def resumed(run: Config, now: Config, *, given: Collection[str]) -> Config:
    """The configuration that a run is resumed with: its own values of the keys that matter for the weights.

    A default, or a file of `configs/`, may have another value by now. What the command line gives counts whatever the
    run has, and ``diff`` tells where they disagree; so do the keys that may change on resume.

    Args:
        run: The run's saved configuration.
        now: As composed now.
        given: Keys and sections that the command line gives in another way than the command that began the run.
    """

    def is_given(key: str) -> bool:
        return any(each in ("", key) or key.startswith(f"{each}.") for each in given)

    values, kept = to_mapping(now), flatten(to_mapping(run))
    if is_given("model.family"):
        kept = {key: value for key, value in kept.items() if not key.startswith("model.")}
    else:
        values["model"] = {key: value for key, value in values["model"].items() if is_given(f"model.{key}")}
    for key, value in kept.items():
        if not _is_free(key) and not is_given(key):
            *sections, last = key.split(".")  # names of the user's, which may have dots, are below keys that may change
            reduce(getitem, sections, values)[last] = value
    return parse(values)


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE_ON_RESUME)
