"""From a configuration to prepared data."""

import logging
from pathlib import Path

from seq2seq.config.schema import Config
from seq2seq.data import prepare as data_preparation
from seq2seq.data.prepare import Prepared
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder
from seq2seq.system.console import console_log
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers

LOGGER = logging.getLogger("seq2seq")


def prepare(config: Config) -> None:
    """The tokenizer and the token stores, without training; tells what is in them."""
    with console_log():
        prepared = prepare_data(config)
        prepared.verify()
        for line in prepared.report.lines():
            LOGGER.info("%s", line)


def prepare_data(config: Config) -> Prepared:
    """Data and tokenizers, those of another run if this one starts from it.

    Ranks that come second wait for the first and find its work.
    """
    return data_preparation.prepare(
        config.data,
        config.tokenizer,
        cache_root=Path(config.cache_root),
        seed=config.seed,
        log=LOGGER.info,
        tokenizers=base_tokenizers(config),
    )


def base_tokenizers(config: Config) -> Tokenizers | None:
    """Those of the run that this one starts from (`trainer.init_from`); None where it starts from nothing.

    Raises:
        UserError: If there is no such run.
    """
    if config.trainer.init_from is None:
        return None
    start = RunFolder(Path(config.trainer.init_from))
    run = start if start.tokenizer.is_dir() else RunFolder(start.path.resolve().parent.parent)
    if not run.tokenizer.is_dir():
        raise UserError(
            f"trainer.init_from={config.trainer.init_from} is neither a run folder nor one of its checkpoints"
        )
    return load_tokenizers(run.tokenizer)
