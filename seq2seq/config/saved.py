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

from seq2seq.config.parse import parse, schema_fields
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
    """Returns one message per key that differs from its default but is ignored because of another key's value.

    A field with the metadata ``{"used_if": (other key, values)}`` is used only if the other key has, or contains, one
    of these values.
    """
    values = flatten(to_mapping(config))
    defaults = flatten(to_mapping(parse({"model": {"family": config.model.family}})))
    messages = []
    for key, field in schema_fields().items():
        if key not in values or values[key] == defaults[key] or "used_if" not in field.metadata:
            continue
        condition, wanted = field.metadata["used_if"]
        found = values.get(condition)
        if not set(found if isinstance(found, list) else [found]) & set(wanted):
            needed = " or ".join(map(_override_value, wanted))
            because = (
                f"{condition}={_override_value(found)}" if condition in values else f"this model has no {condition}"
            )
            value = _override_value(values[key])
            messages.append(f"{key}={value} is ignored because {because}; it needs {condition}={needed}")
    return messages


def _override_value(value: object) -> str:
    """Formats a value as in an override on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_override_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that matter for the weights and differ, with both values."""
    before, after = flatten(to_mapping(old)), flatten(to_mapping(new))
    return {
        key: (before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not _is_in(key, MAY_CHANGE_ON_RESUME)
    }


def fingerprints(config: Config) -> dict[str, str]:
    """Returns the values of the keys that matter for the weights, as JSON by ``config.KEY``.

    Defaults are included, so that later changes of defaults do not alter what a checkpoint was trained with.
    """
    values = flatten(to_mapping(config))
    return {
        f"config.{key}": json.dumps(value) for key, value in values.items() if not _is_in(key, MAY_CHANGE_ON_RESUME)
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
    if _is_in("model.family", given):
        run_values = {key: value for key, value in run_values.items() if not key.startswith("model.")}
    else:
        values["model"] = {key: value for key, value in values["model"].items() if _is_in(f"model.{key}", given)}
    for key, value in run_values.items():
        if not _is_in(key, [*MAY_CHANGE_ON_RESUME, *given]):
            *sections, last = key.split(".")  # test set names may have dots, but data.test may change
            reduce(getitem, sections, values)[last] = value
    return parse(values)


def _is_in(key: str, sections: Collection[str]) -> bool:
    """Returns whether a key is one of these, or in one of these sections."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)
