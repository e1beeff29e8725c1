"""`seq2seq prepare`: trains the tokenizer and writes the token stores of a configuration."""

import logging
from pathlib import Path

from seq2seq.config.schema import Config
from seq2seq.data import prepare as data_preparation
from seq2seq.data.prepare import PreparedData
from seq2seq.data.report import report_lines
from seq2seq.pipeline.base_run import base_tokenizers
from seq2seq.runs.folder import RunFolder
from seq2seq.system.console import console_log

logger = logging.getLogger("seq2seq")


def prepare(config: Config) -> None:
    """Prepares the tokenizer and the token stores without training, and logs a report of them."""
    with console_log():
        prepared = prepare_data(config)
        prepared.verify()
        for line in report_lines(prepared.reports):
            logger.info("%s", line)


def prepare_data(config: Config, folder: RunFolder | None = None) -> PreparedData:
    """Prepares data and tokenizers, or finds them in the cache; ``trainer.init_from`` brings its own tokenizers.

    One rank prepares; the others wait for it and find the result in the cache.

    Args:
        config: The run's configuration.
        folder: The run's folder; None for a command that has none.
    """
    return data_preparation.prepare(
        config.data,
        config.tokenizer,
        cache_root=Path(config.cache_root),
        seed=config.seed,
        log=logger.info,
        tokenizers=base_tokenizers(config, folder),
    )
