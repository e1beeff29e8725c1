"""`seq2seq prepare`: the tokenizer and the token store, without training."""

import logging

from omegaconf import DictConfig

from seq2seq.cli import application
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.pipeline.prepare import prepare_data
from seq2seq.system.console import console_log

LOGGER = logging.getLogger("seq2seq")


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    application.run("prepare", _prepare, arguments, schema=Config)


def _prepare(values: DictConfig) -> None:
    config = parse(values)
    with console_log():
        prepared = prepare_data(config)
        prepared.verify()
        for line in prepared.report.lines():
            LOGGER.info("%s", line)
