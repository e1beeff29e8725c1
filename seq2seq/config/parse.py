"""The one door through which a mapping, composed by Hydra or read from a run folder, becomes a configuration."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seq2seq.config.rules import check_values, flatten
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.families import FAMILIES
from seq2seq.models.transformer_config import TransformerConfig


def register_schema(command: str, schema: type, defaults: DictConfig | None = None) -> None:
    """Registers what Hydra checks names and types of a command's configuration against, as it composes it.

    Only this command's: whenever Hydra looks into a group of configurations, it first copies all that is registered.

    Args:
        command: Whose primary configuration begins with ``VERB_schema``.
        schema: Of that configuration.
        defaults: Values of the schema that overrides change, where they are not its own.
    """
    store = ConfigStore.instance()
    node: type | DictConfig = schema
    if issubclass(schema, Config):
        node = composable(schema)
        for family, model in FAMILIES.items():
            store.store(group="model", name=f"{family}_schema", node=model)
    store.store(name=f"{command}_schema", node=node if defaults is None else defaults)


def composable(schema: type[Config]) -> DictConfig:
    """A schema to which Hydra can add test sets key by key; ``parse`` checks them afterwards."""
    node = OmegaConf.structured(schema)
    node.model = {}  # each family has a schema of its own in the group
    node.data.test._metadata.element_type = Any  # the type of a section refuses the empty mapping it begins as
    return cast(DictConfig, node)


def parse(values: Mapping[str, Any] | DictConfig, schema: type[Config] = Config) -> Config:
    """Turns a mapping, composed or read from a run folder, into checked dataclasses.

    Raises:
        UserError: If a key is unknown, a value has the wrong type, or a rule between keys is broken.
    """
    plain = OmegaConf.to_container(values, resolve=False) if isinstance(values, DictConfig) else dict(values)
    assert isinstance(plain, dict)
    model = plain.get("model") or {}
    if not isinstance(model, Mapping):
        raise UserError(f"model={model}: is a section with keys of its own, not a value")
    family = model.get("family", TransformerConfig.family)
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"model.family={family!s}: no such model; choose one of {', '.join(FAMILIES)}")
    base = _types(schema, family)  # type: ignore[arg-type]  # a class can be hashed, whatever its instances can
    check_keys(plain, base)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(base, plain))
    except OmegaConfBaseException as error:
        key = error.full_key or "configuration"
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{key}: {reason}") from error
    assert isinstance(config, Config)
    check_values(flatten(asdict(config)))
    return config


@cache
def _types(schema: type, family: str) -> DictConfig:
    """What values are checked against; made once, for it takes longer than the checks."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    node.model = OmegaConf.structured(FAMILIES[family])
    return node


def check_keys(values: Mapping[Any, Any], schema: DictConfig, prefix: str = "") -> None:
    """Raises a UserError for a key that the schema does not have, naming the nearest one that it has."""
    for key, value in values.items():
        full = prefix + str(key)
        if key not in schema.keys():  # noqa: SIM118 - `in` denies keys whose value is missing
            raise UserError(unknown_key(full, [prefix + str(known) for known in schema.keys()]))  # noqa: SIM118
        node = schema._get_node(key)
        if isinstance(node, ListConfig) and not isinstance(value, list | None):
            raise UserError(f"{full}={value}: must be a list, such as {full}=[a,b]")
        if isinstance(node, DictConfig) and not isinstance(value, Mapping | None):
            raise UserError(f"{full}={value}: is a section with keys of its own, not a value")
        if not isinstance(value, Mapping) or not isinstance(node, DictConfig):
            continue
        element = node._metadata.element_type
        if is_dataclass(element):  # a mapping from free names to sections: test sets
            for name, section in value.items():
                if isinstance(section, Mapping):
                    check_keys(section, OmegaConf.structured(element), f"{full}.{name}.")
        else:
            check_keys(value, node, f"{full}.")


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that does not exist here: the nearest that does, or the family of models that has it."""
    for family, schema in FAMILIES.items():
        if key in (f"model.{entry.name}" for entry in fields(schema)):
            return f"{key} is a key of the {family} family only, and the model here is of another"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{key} is no configuration key" + (f"; did you mean {nearest[0]}?" if nearest else "")


def known_keys(schema: type = Config) -> list[str]:
    """All keys of a schema with their sections, both families' for the model."""

    def walk(kind: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(kind)
        for entry in fields(kind):
            hint = hints[entry.name]
            options = [hint, *get_args(hint)]
            yield prefix + entry.name
            for option in options:
                if isinstance(option, type) and is_dataclass(option) and prefix + entry.name != "data.test":
                    yield from walk(option, f"{prefix}{entry.name}.")

    keys = set(walk(schema, ""))
    if issubclass(schema, Config):
        for family_schema in FAMILIES.values():
            keys |= set(walk(family_schema, "model."))
    return sorted(keys)


def configs_folder() -> Path:
    """The folder of the YAML files: inside an installed package, or beside it in a checkout.

    Raises:
        UserError: If the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"the configs folder is missing beside {package}: the installation is incomplete; install again")
