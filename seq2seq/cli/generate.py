"""`seq2seq generate`: one output line for each input line, in order."""

from omegaconf import DictConfig

from seq2seq import config as configuration
from seq2seq.cli import application, run_argument
from seq2seq.cli.imports import importing
from seq2seq.verb_config import GenerateConfig


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    defaults = run_argument.defaults(arguments, GenerateConfig)
    application.run("generate", _generate, arguments, schema=GenerateConfig, defaults=defaults)


def _generate(values: DictConfig) -> None:
    run_argument.require(values)
    config = configuration.parse(values, GenerateConfig)
    assert isinstance(config, GenerateConfig)
    folders = run_argument.run_folders(config.run)
    with importing():
        from seq2seq.commands.generate import generate
    generate(config, folders)
