"""Runs a command as a Hydra application, with clear messages for errors in overrides."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from seq2seq.config.parse import configs_folder, known_keys, register_schema, unknown_key_message
from seq2seq.errors import UserError

# What Hydra raises for wrong overrides: ValueError for an unknown flag, AssertionError for its own settings.
_OVERRIDE_ERRORS = (HydraException, OmegaConfBaseException, ValueError, AssertionError)
# Lines of Hydra's and OmegaConf's messages that only help their developers.
_INTERNAL_LINES = ("full_key:", "reference_type=", "object_type=", "Config search path:", "provider=")


def run(
    command: str,
    function: Callable[[DictConfig], Any],
    arguments: list[str],
    *,
    schema: type,
    defaults: DictConfig | None = None,
) -> None:
    """Composes the command's configuration from its YAML files and the arguments, and calls the function with it.

    Args:
        command: The command, also the name of its primary configuration file.
        function: Called once, or for each job of a sweep.
        arguments: Overrides and Hydra's own options.
        schema: Dataclass of the primary configuration.
        defaults: The schema with other defaults, such as the values of a run; None for the schema's own.

    Raises:
        UserError: If Hydra cannot compose the configuration.
    """
    register_schema(command, schema, defaults)
    OmegaConf.register_new_resolver("choice", _choice, replace=True)

    def job(values: DictConfig) -> Any:
        try:
            return function(values)
        except Exception as error:
            raise _JobFailed(error) from error

    application = hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=command)(job)
    argv = sys.argv
    sys.argv = [f"seq2seq {command}", *arguments]
    try:
        with _hydra_raises_errors():
            application()
    except _JobFailed as failure:
        raise failure.error from None
    except _OVERRIDE_ERRORS as error:
        raise UserError(_explain(error, arguments, schema)) from error
    finally:
        sys.argv = argv


class _JobFailed(BaseException):
    """Carries an error past Hydra, which would print its own message for an ``Exception``."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@contextmanager
def _hydra_raises_errors() -> Iterator[None]:
    """Makes Hydra raise errors instead of printing them and exiting with its own code."""
    previous = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = previous


def _explain(error: Exception, arguments: list[str], schema: type) -> str:
    """Returns a message about the first unreadable override or unknown key; else Hydra's own message."""
    keys = known_keys(schema)
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-") or not (argument.startswith("~") or "=" in argument):
            continue  # one of Hydra's options, or its value
        try:
            override = parser.parse_override(argument)
        except (HydraException, ValueError):
            return (
                f"cannot read the override {argument!r}: a value with = , ( ) [ ] {{ }} or non-ASCII letters needs "
                "inner quotes, such as 'data.root=\"a, b\"'"
            )
        key = override.key_or_group
        if key.startswith("hydra") or (configs_folder() / key.partition("@")[0]).is_dir():
            continue  # Hydra's own settings, and the selection of a config group
        is_test_set = key.startswith("data.test.")  # with a name that the user chose
        if key not in keys and not is_test_set:
            return unknown_key_message(key, keys)
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key in keys:
        return unknown_key_message(cause.full_key, keys)  # a key of the other model family
    reasons = [str(error).strip()]
    if cause is not None:
        reasons.append(str(cause).strip())
    lines = [line.strip() for reason in reasons for line in reason.splitlines()]
    message = " ".join(line for line in lines if line and not line.startswith(_INTERNAL_LINES))
    return re.sub(r" \w+_schema\b", "", message)  # the structured configs that `register_schema` stores


def _choice(group: str, *, _root_: DictConfig) -> str:
    """Resolves ``${choice:GROUP}`` to the option selected in a config group.

    Before a sweep's first job only ``HydraConfig`` knows the choices; the config itself does not contain them yet.
    """
    from hydra.core.hydra_config import HydraConfig

    choices = _root_.hydra.runtime.choices if "hydra" in _root_ else HydraConfig.get().runtime.choices
    return str(choices[group])


def job_overrides() -> tuple[list[str], bool]:
    """Returns the overrides of the current job, and whether it belongs to a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    current = HydraConfig.get()
    return list(current.overrides.task), current.mode is RunMode.MULTIRUN
