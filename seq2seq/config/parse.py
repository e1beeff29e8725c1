"""Parses mappings, composed by Hydra or read from a run folder, into checked configurations."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, fields, is_dataclass
from functools import cache
from itertools import chain
from typing import Any, TypeVar, cast, get_type_hints, overload

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seq2seq.config.rules import check_values
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.families import FAMILIES
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.system.plain_yaml import flatten

C = TypeVar("C")


@overload
def parse(values: Mapping[str, Any] | DictConfig) -> Config: ...
@overload
def parse(values: Mapping[str, Any] | DictConfig, schema: type[C]) -> C: ...
def parse(values: Mapping[str, Any] | DictConfig, schema: type = Config) -> Any:
    """Parses a mapping, composed or read from a run folder, into the checked dataclasses of a schema.

    Raises:
        UserError: If a key is unknown, a value has the wrong type, or a rule between keys is broken.
    """
    plain = OmegaConf.to_container(values, resolve=False) if isinstance(values, DictConfig) else dict(values)
    assert isinstance(plain, dict)
    family = _model_family(plain) if issubclass(schema, Config) else None
    base = _schema_node(schema, family)
    check_keys(plain, base)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(base, plain))
    except OmegaConfBaseException as error:
        key = error.full_key or "configuration"
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{key}: {reason}") from error
    assert isinstance(config, schema)
    check_values(flatten(asdict(config)))  # type: ignore[call-overload]  # every schema is a dataclass
    return config


def _model_family(values: Mapping[Any, Any]) -> str:
    model = values.get("model") or {}
    if not isinstance(model, Mapping):
        raise UserError(f"model={model}: is a section with its own keys, not a value")
    family = model.get("family", TransformerConfig.family)
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"model.family={family!s}: no such model; choose one of {', '.join(FAMILIES)}")
    return family


@cache
def _schema_node(schema: type, family: str | None) -> DictConfig:
    """Builds a schema, with the model section of a family; cached, since it takes longer than the checks."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    if family is not None:
        node.model = OmegaConf.structured(FAMILIES[family])
    return node


def check_keys(values: Mapping[Any, Any], schema: DictConfig, prefix: str = "") -> None:
    """Raises a UserError for a key that the schema does not have; suggests the nearest one."""
    for key, value in values.items():
        full_key = prefix + str(key)
        if key not in schema.keys():  # noqa: SIM118 - `in` is false for keys whose value is missing
            raise UserError(unknown_key_message(full_key, [prefix + str(known) for known in schema.keys()]))  # noqa: SIM118
        node = schema._get_node(key)
        if isinstance(node, ListConfig) and not isinstance(value, list | None):
            raise UserError(f"{full_key}={value}: must be a list, such as {full_key}=[a,b]")
        if isinstance(node, DictConfig) and not isinstance(value, Mapping | None):
            raise UserError(f"{full_key}={value}: is a section with its own keys, not a value")
        if not isinstance(value, Mapping) or not isinstance(node, DictConfig):
            continue
        element = node._metadata.element_type
        if is_dataclass(element):  # a mapping from names to sections: test sets
            for name, section in value.items():
                if isinstance(section, Mapping):
                    check_keys(section, OmegaConf.structured(element), f"{full_key}.{name}.")
        else:
            check_keys(value, node, f"{full_key}.")


def unknown_key_message(key: str, known: list[str]) -> str:
    """Returns the message for an unknown key: the nearest known key, or the model family that has it."""
    for family, schema in FAMILIES.items():
        if key in (f"model.{entry.name}" for entry in fields(schema)):
            return f"{key} is a key of the {family} family only, but this model belongs to another family"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{key} is not a configuration key" + (f"; did you mean {nearest[0]}?" if nearest else "")


def schema_fields(schema: type = Config) -> dict[str, Field[Any]]:
    """Returns the dataclass fields of a schema by full key, with those of all model families."""

    def walk(section: type, prefix: str) -> Iterator[tuple[str, Field[Any]]]:
        hints = get_type_hints(section)
        for entry in fields(section):
            yield prefix + entry.name, entry
            if is_dataclass(hints[entry.name]):
                yield from walk(hints[entry.name], f"{prefix}{entry.name}.")

    families = FAMILIES.values() if issubclass(schema, Config) else ()
    return dict(chain(walk(schema, ""), *(walk(family, "model.") for family in families)))
