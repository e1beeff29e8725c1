"""Reads a saved configuration safely: plain values only, without running code or reading environment variables."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from seq2seq.errors import UserError

_MAX_BYTES = 1 << 20  # a configuration with hundreds of test sets has a tenth of it
_MAX_DEPTH = 10  # a key of a test set is on the fourth level


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file as written by `config.to_yaml`, without checking its keys.

    Raises:
        UserError: The file cannot be read, is not a mapping, or holds more than plain values: interpolations, which
            could read the environment; aliases, which can expand a few lines to gigabytes; or Python objects.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise UserError(f"{path} has {len(text):,} bytes: a saved configuration has at most {_MAX_BYTES:,}")
    try:
        _check_shape(text, path)
        tree = OmegaConf.load(io.BytesIO(text))
    except UserError:
        raise
    except Exception as error:  # PyYAML's and OmegaConf's errors have no common base
        raise UserError(f"{path} is not valid YAML: {next(iter(str(error).splitlines()), error)}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path} is not a mapping of configuration keys")
    values = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(values, dict)
    _check_plain(values, path)
    return {str(key): value for key, value in values.items()}


def _check_shape(text: bytes, path: Path) -> None:
    """Raises a UserError for deep nesting and aliases, before they are expanded."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise UserError(f"{path} is nested {depth} levels deep: a saved configuration has at most {_MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}: a saved configuration has values only, no aliases (*name)")


def _check_plain(value: object, path: Path, key: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_plain(inner, path, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, path, key)
    elif isinstance(value, str):
        if "${" in value:
            raise UserError(f"{path}: {key}={value}: a saved configuration has values only, no interpolations")
    elif not isinstance(value, bool | int | float | None):
        raise UserError(f"{path}: {key}: a {type(value).__name__} is not a plain value: use text or a number")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to values by full key; a list is a value, and so is an empty mapping."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
