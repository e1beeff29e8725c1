"""`seq2seq generate`: one output line for each input line, in order."""

from omegaconf import DictConfig

from seq2seq.cli import application, run_argument
from seq2seq.cli.imports import importing
from seq2seq.config.commands import GenerateConfig
from seq2seq.config.parse import parse


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    defaults = run_argument.defaults(arguments, GenerateConfig)
    application.run("generate", _generate, arguments, schema=GenerateConfig, defaults=defaults)


def _generate(values: DictConfig) -> None:
    run_argument.require(values)
    config = parse(values, GenerateConfig)
    assert isinstance(config, GenerateConfig)
    folders = run_argument.run_folders(config.run)
    with importing():
        from seq2seq.pipeline.generate import generate
    generate(config, folders)
