"""Runs a command as a Hydra application, with clear messages for errors in overrides."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seq2seq.cli import run_argument
from seq2seq.config.compose import (
    HYDRA_VERSION,
    OVERRIDE_ERRORS,
    configs_folder,
    explain,
    override_key,
    register_schema,
)
from seq2seq.config.parse import parse
from seq2seq.errors import UserError

C = TypeVar("C")


def run(command: str, function: Callable[[C], Any], arguments: list[str], *, schema: type[C]) -> None:
    """Composes the command's configuration from its YAML files and the arguments, and calls the function with it.

    Args:
        command: The command, also the name of its primary configuration file.
        function: Called with the checked configuration: once, or for each job of a sweep.
        arguments: Overrides and Hydra's own options.
        schema: Dataclass of the configuration. If it extends that of a run, ``run=`` brings the defaults.

    Raises:
        UserError: If Hydra cannot compose the configuration, or it breaks a rule.
    """
    register_schema(command, schema, run_argument.defaults(arguments, schema))
    OmegaConf.register_new_resolver("choice", _choice, replace=True)

    def job(values: DictConfig) -> Any:
        try:
            run_argument.require_folder(values, schema)
            return function(parse(values, schema))
        except Exception as error:
            raise _JobFailed(error) from error

    application = hydra.main(version_base=HYDRA_VERSION, config_path=str(configs_folder()), config_name=command)(job)
    argv = sys.argv
    sys.argv = [f"seq2seq {command}", *arguments]
    try:
        with _hydra_raises_errors():
            application()
    except _JobFailed as failure:
        raise failure.error from None
    except OVERRIDE_ERRORS as error:
        raise UserError(explain(error, arguments, schema)) from error
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


def _choice(group: str, *, _root_: DictConfig) -> str:
    """Resolves ``${choice:GROUP}`` to the option selected in a config group.

    Before a sweep's first job only ``HydraConfig`` knows the choices; the config itself does not contain them yet.
    """
    choices = _root_.hydra.runtime.choices if "hydra" in _root_ else HydraConfig.get().runtime.choices
    return str(choices[group])


def job_overrides() -> tuple[list[str], bool]:
    """Returns the overrides of the current job, and whether it belongs to a sweep."""
    current = HydraConfig.get()
    return list(current.overrides.task), current.mode is RunMode.MULTIRUN


def given_keys() -> list[str]:
    """Returns the keys that the command line sets, adds or deletes in the current job."""
    overrides, _ = job_overrides()
    return [override_key(override) for override in overrides]
