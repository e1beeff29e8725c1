"""`seq2seq prepare`: the tokenizer and the token store, without training."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from seq2seq import config as configuration
from seq2seq.api import base_tokenizers
from seq2seq.cli import application
from seq2seq.config import Config
from seq2seq.data.prepare import prepare
from seq2seq.runtime import console_log, set_threads

LOGGER = logging.getLogger("seq2seq")


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    application.run("prepare", _prepare, arguments, schema=Config)


def _prepare(values: DictConfig) -> None:
    config = configuration.parse(values)
    set_threads(config.trainer.threads)
    with console_log():
        prepared = prepare(
            config.data,
            config.tokenizer,
            cache_root=Path(config.cache_root),
            seed=config.seed,
            log=LOGGER.info,
            tokenizers=base_tokenizers(config),
        )
        prepared.verify()
        for line in prepared.report.lines():
            LOGGER.info("%s", line)
