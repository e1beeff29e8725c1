"""`seq2seq prepare`: trains the tokenizer and writes the token stores of a configuration."""

import logging
from pathlib import Path

from seq2seq.config.schema import Config
from seq2seq.data import prepare as data_preparation
from seq2seq.data.prepare import PreparedData
from seq2seq.data.report import report_lines
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder
from seq2seq.system.console import console_log
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers

logger = logging.getLogger("seq2seq")


def prepare(config: Config) -> None:
    """Prepares the tokenizer and the token stores without training, and logs a report of them."""
    with console_log():
        prepared = prepare_data(config)
        prepared.verify()
        for line in report_lines(prepared.reports):
            logger.info("%s", line)


def prepare_data(config: Config) -> PreparedData:
    """Prepares data and tokenizers, or finds them in the cache; ``trainer.init_from`` brings its own tokenizers.

    One rank prepares; the others wait for it and find the result in the cache.
    """
    return data_preparation.prepare(
        config.data,
        config.tokenizer,
        cache_root=Path(config.cache_root),
        seed=config.seed,
        log=logger.info,
        tokenizers=base_tokenizers(config),
    )


def base_tokenizers(config: Config) -> Tokenizers | None:
    """Loads the tokenizers of the run that this one starts from (`trainer.init_from`); None if it starts from none.

    Raises:
        UserError: If there is no such run.
    """
    if config.trainer.init_from is None:
        return None
    folder = RunFolder(Path(config.trainer.init_from))
    run = folder if folder.tokenizer.is_dir() else RunFolder(folder.path.resolve().parent.parent)
    if not run.tokenizer.is_dir():
        raise UserError(
            f"trainer.init_from={config.trainer.init_from} is neither a run folder nor one of its checkpoints"
        )
    return load_tokenizers(run.tokenizer)
