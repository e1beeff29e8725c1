"""Composes the configuration of a command with Hydra: from YAML files, the values of a run, and overrides."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from seq2seq.config import saved
from seq2seq.config.parse import schema_fields, unknown_key_message
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.families import FAMILIES
from seq2seq.system.config import Device

HYDRA_VERSION = "1.3"  # the version of Hydra whose defaults apply

# What Hydra raises for wrong overrides: ValueError for an unknown flag, AssertionError for its own settings.
OVERRIDE_ERRORS = (HydraException, OmegaConfBaseException, ValueError, AssertionError)
# Lines of Hydra's and OmegaConf's messages that only help their developers.
_INTERNAL_LINES = ("full_key:", "reference_type=", "object_type=", "Config search path:", "provider=")


def configs_folder() -> Path:
    """Returns the folder of the YAML files: inside an installed package, or beside it in a checkout.

    Raises:
        UserError: If the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"the configs folder is missing beside {package}: the installation is incomplete; install again")


def compose(
    command: str, overrides: Sequence[str], *, schema: type = Config, defaults: DictConfig | None = None
) -> DictConfig:
    """Composes the configuration of a command as its command line would; ``parse`` checks it.

    Args:
        command: The command, also the name of its primary configuration file.
        overrides: Overrides in Hydra's grammar.
        schema: Dataclass of the configuration.
        defaults: See ``register_schema``.

    Raises:
        UserError: If an override cannot be read, or does not fit the schema.
    """
    register_schema(command, schema, defaults)
    current = GlobalHydra.instance().hydra  # of a Hydra application that calls `seq2seq.load`
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(configs_folder()), version_base=HYDRA_VERSION):
            return hydra.compose(command, overrides=list(overrides))
    except OVERRIDE_ERRORS as error:
        raise UserError(explain(error, overrides, schema)) from error
    finally:
        GlobalHydra.instance().hydra = current


def register_schema(command: str, schema: type, defaults: DictConfig | None = None) -> None:
    """Registers the schema against which Hydra checks keys and types of a command's configuration.

    Only the schema of this command, since Hydra copies all registered schemas whenever it reads a config group.

    Args:
        command: The command; the defaults of its primary configuration begin with ``COMMAND_schema``.
        schema: Dataclass of that configuration.
        defaults: The schema with other defaults, see ``run_defaults``; None for the schema's own.
    """
    store = ConfigStore.instance()
    node = _open_schema(schema)
    if issubclass(schema, Config):
        for family, model in FAMILIES.items():
            store.store(group="model", name=f"{family}_schema", node=model)
    store.store(name=f"{command}_schema", node=node if defaults is None else defaults)


def run_defaults(config: Config, schema: type) -> DictConfig:
    """Returns a schema whose defaults are the values of a run.

    Hydra applies overrides to these values as to any others: it checks keys and types, adds and deletes test sets.

    Args:
        config: The run's configuration; a schema that does not extend it takes only its data and metrics.
        schema: Dataclass of a command's configuration.
    """
    node = _open_schema(schema)
    values = saved.to_mapping(config)
    if not issubclass(schema, Config):
        node.merge_with({key: values[key] for key in ("data", "metrics")})
        return node
    with open_dict(node):
        node.model = OmegaConf.structured(config.model)
        node.merge_with(OmegaConf.create(values))
        node.trainer.device = Device.auto  # the machine may be another one
    return node


def _open_schema(schema: type) -> DictConfig:
    """Returns a schema to which Hydra can add test sets key by key; ``parse`` checks them afterwards."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    if issubclass(schema, Config):
        node.model = {}  # each model family has its own schema in the group
        node.data.test._metadata.element_type = Any  # the typed section would reject the empty mapping
    return node


def override_key(override: str) -> str:
    """Returns the key, section or config group that an override sets, adds or deletes."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def explain(error: Exception, arguments: Sequence[str], schema: type) -> str:
    """Returns a message about the first unreadable override or unknown key; else Hydra's own message.

    Args:
        error: What Hydra raised, one of ``OVERRIDE_ERRORS``.
        arguments: Overrides, also with Hydra's options between them.
        schema: Dataclass of the configuration.
    """
    keys = sorted(schema_fields(schema))
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-") or not (argument.startswith("~") or "=" in argument):
            continue  # one of Hydra's options, or its value
        try:
            key = parser.parse_override(argument).key_or_group
        except (HydraException, ValueError):
            return (
                f"cannot read the override {argument!r}: a value with = , ( ) [ ] {{ }} or non-ASCII letters needs "
                "inner quotes, such as 'data.root=\"a, b\"'"
            )
        if key.startswith("hydra") or (configs_folder() / key).is_dir():
            continue  # Hydra's own settings, and the selection of a config group
        if key not in keys and not key.startswith("data.test."):  # test sets have names that the user chose
            return unknown_key_message(key, keys)
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key in keys:
        return unknown_key_message(cause.full_key, keys)  # a key of the other model family
    reasons = str(error) if cause is None else f"{error}\n{cause}"
    lines = [line.strip() for line in reasons.splitlines()]
    message = " ".join(line for line in lines if line and not line.startswith(_INTERNAL_LINES))
    return re.sub(r" \w+_schema\b", "", message)  # the structured configs that `register_schema` stores
