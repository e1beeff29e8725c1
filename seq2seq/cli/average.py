"""`seq2seq average`: checkpoints of a run averaged into a new one."""

from omegaconf import DictConfig, OmegaConf

from seq2seq.cli import application, run_argument
from seq2seq.cli.imports import importing
from seq2seq.config import saved
from seq2seq.config.commands import AverageConfig
from seq2seq.runs.folder import require_run


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    application.run("average", _average, arguments, schema=AverageConfig)


def _average(values: DictConfig) -> None:
    run_argument.require(values)
    settings = OmegaConf.to_object(values)
    assert isinstance(settings, AverageConfig)
    folder = require_run(settings.run)
    config = saved.load(folder.config)
    with importing():
        from seq2seq.pipeline.average import average
    average(config, folder, settings)
