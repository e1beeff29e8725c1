"""Runs a command as a Hydra application, with errors of overrides told in this package's words."""

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

from seq2seq.config.parse import configs_folder, known_keys, register_schema, unknown_key
from seq2seq.errors import UserError

# What Hydra raises over overrides: the last two for an option that is no name, and for one of its own settings.
_OF_OVERRIDES = (HydraException, OmegaConfBaseException, ValueError, AssertionError)
# Lines of Hydra's and OmegaConf's messages that speak to programmers.
_NOISE = ("full_key:", "reference_type=", "object_type=", "Config search path:", "provider=")


def run(
    command: str,
    body: Callable[[DictConfig], Any],
    arguments: list[str],
    *,
    schema: type,
    defaults: DictConfig | None = None,
) -> None:
    """Composes the command's configuration from its YAML files and the arguments, and calls the body with it.

    Args:
        command: Also the name of the primary configuration file.
        body: Called once, or for each job of a sweep.
        arguments: Overrides and Hydra's own flags.
        schema: Of the primary configuration; tells which keys there are.
        defaults: Values of the schema that overrides change, where they are not its own.

    Raises:
        UserError: If Hydra cannot compose the configuration.
    """
    register_schema(command, schema, defaults)
    OmegaConf.register_new_resolver("choice", _choice, replace=True)

    def job(values: DictConfig) -> Any:
        try:
            return body(values)
        except Exception as error:
            raise _JobFailed(error) from error

    application = hydra.main(version_base="1.3", config_path=str(configs_folder()), config_name=command)(job)
    before = sys.argv
    sys.argv = [f"seq2seq {command}", *arguments]
    try:
        with _errors_raised():
            application()
    except _JobFailed as failure:
        raise failure.error from None
    except _OF_OVERRIDES as error:
        raise UserError(_explain(error, arguments, schema)) from error
    finally:
        sys.argv = before


class _JobFailed(BaseException):
    """Carries an error past Hydra, which would print a line of its own for an ``Exception``."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Makes Hydra raise instead of printing and ending with its own exit code."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _explain(error: Exception, arguments: list[str], schema: type) -> str:
    """Names the first override whose key does not exist; Hydra's own words otherwise."""
    keys = known_keys(schema)
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-") or not (argument.startswith("~") or "=" in argument):
            continue  # one of Hydra's flags, or a flag's value
        try:
            override = parser.parse_override(argument)
        except (HydraException, ValueError):
            return (
                f"cannot read the override {argument!r}: a value with = , ( ) [ ] {{ }} or non-ASCII letters needs "
                "inner quotes, such as 'data.root=\"a, b\"'"
            )
        key = override.key_or_group
        if key.startswith("hydra") or (configs_folder() / key.partition("@")[0]).is_dir():
            continue  # Hydra's own settings, and the choice of a group's option
        free_name = key.startswith("data.test.")  # test sets have names of the user's
        if key not in keys and not free_name:
            return unknown_key(key, keys)
    missing = error.__cause__
    if isinstance(missing, ConfigAttributeError | ConfigKeyError) and missing.full_key in keys:
        return unknown_key(missing.full_key, keys)  # of the other family of models
    reasons = [str(error).strip()]
    if error.__cause__ is not None:
        reasons.append(str(error.__cause__).strip())
    lines = [line.strip() for reason in reasons for line in reason.splitlines()]
    message = " ".join(line for line in lines if line and not line.startswith(_NOISE))
    return re.sub(r" \w+_schema\b", "", message)  # options of groups that are not for users


def _choice(group: str, *, _root_: DictConfig) -> str:
    """The option that was chosen of a group: a job asks Hydra, a sweep before its first job the section of Hydra."""
    from hydra.core.hydra_config import HydraConfig

    choices = _root_.hydra.runtime.choices if "hydra" in _root_ else HydraConfig.get().runtime.choices
    return str(choices[group])


def overrides_of_job() -> tuple[list[str], bool]:
    """The overrides of the job that runs now, and whether it is one of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    current = HydraConfig.get()
    return list(current.overrides.task), current.mode is RunMode.MULTIRUN
