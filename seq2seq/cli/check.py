"""`seq2seq check`: what `train` would meet, looked at in seconds."""

import shlex
from dataclasses import fields

from omegaconf import DictConfig

from seq2seq.cli import application
from seq2seq.cli.imports import importing
from seq2seq.cli.train import run_path
from seq2seq.config.commands import CheckConfig
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.runs.folder import RunFolder


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    application.run("check", _check, arguments, schema=CheckConfig)


def _check(values: DictConfig) -> None:
    settings = parse(values, CheckConfig)
    assert isinstance(settings, CheckConfig)
    config = Config(**{entry.name: getattr(settings, entry.name) for entry in fields(Config)})
    folder = RunFolder(run_path(config))
    with importing():
        from seq2seq.preflight.check import check
    check(config, folder, command=_train_command(), format=settings.format)


def _train_command() -> str:
    overrides, _ = application.overrides_of_job()
    return shlex.join(["seq2seq", "train", *(each for each in overrides if not each.startswith("format="))])
