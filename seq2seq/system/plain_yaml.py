"""Reads a saved configuration as plain values, whatever the file holds: no code runs, no variable is read."""

import io
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from seq2seq.errors import UserError

_LARGEST = 1 << 20  # bytes; a configuration with hundreds of test sets is a tenth of it
_DEEPEST = 10  # a key of a test set is on the fourth level


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a file of YAML that `config.to_yaml` wrote, or one like it, without checking its keys.

    Raises:
        UserError: It cannot be read, is no mapping, or holds more than plain values: interpolations, which could read
            the environment; aliases, by which a few lines can stand for gigabytes; or Python objects.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _LARGEST:
        raise UserError(f"{path} has {len(text):,} bytes: no saved configuration is above {_LARGEST:,}")
    try:
        _check_shape(text, path)
        tree = OmegaConf.load(io.BytesIO(text))
    except UserError:
        raise
    except Exception as error:  # PyYAML's and OmegaConf's errors have no common base
        raise UserError(f"{path} is no valid YAML: {next(iter(str(error).splitlines()), error)}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path} is no mapping of configuration keys")
    values = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(values, dict)
    _check_plain(values, path)
    return {str(key): value for key, value in values.items()}


def _check_shape(text: bytes, path: Path) -> None:
    """Refuses what would take long to read, before it is."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UserError(f"{path} nests {depth} levels deep: no saved configuration goes beyond {_DEEPEST}")
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
        raise UserError(f"{path}: {key}: a {type(value).__name__} is no plain value: give text or a number")
