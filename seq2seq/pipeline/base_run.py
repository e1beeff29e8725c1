"""The run that another one starts from (``trainer.init_from``): its folder, configuration and tokenizer."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from seq2seq.config import saved
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder
from seq2seq.system.plain_yaml import flatten
from seq2seq.tokenizers.config import TokenizerConfig
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers
from seq2seq.training.config import InitTokenizer


def base_folder(path: str) -> RunFolder:
    """Returns the run folder that ``trainer.init_from`` names, by itself or by one of its checkpoints.

    Raises:
        UserError: If there is no such run.
    """
    given = Path(path)
    for folder in (RunFolder(given), RunFolder(given.resolve().parent.parent)):
        folder.settle()
        if not folder.lacks_config() and folder.tokenizer.is_dir():
            return folder
    raise UserError(f"trainer.init_from={path} is neither a run folder nor one of its checkpoints")


def with_base_tokenizer(config: Config, folder: RunFolder | None, *, given: Collection[str]) -> Config:
    """Returns the configuration of a run that starts from another one, with the tokenizer section of that run.

    Only if it takes that run's tokenizer (``trainer.init_tokenizer=base``). A run that has a checkpoint has recorded
    the section already, and its base may be gone.

    Args:
        config: The run's configuration.
        folder: The run's folder; None for a command that has none.
        given: Keys and groups given on the command line.

    Raises:
        UserError: If there is no such run, or a given key contradicts its tokenizer.
    """
    if not _takes_base_tokenizer(config) or _stands_alone(config, folder):
        return config
    assert config.trainer.init_from is not None
    tokenizer = saved.load(base_folder(config.trainer.init_from).config).tokenizer
    tokenizer = replace(tokenizer, source_vectors=None, target_vectors=None)  # what they gave is in its weights
    wanted, found, defaults = (
        flatten({"tokenizer": saved.to_mapping(section)})
        for section in (config.tokenizer, tokenizer, TokenizerConfig())
    )
    for key, value in wanted.items():
        by_group = "tokenizer" in given and (key == "tokenizer.kind" or value != defaults[key])
        if value != found[key] and (key in given or by_group):
            raise UserError(
                f"{key}={value} cannot take effect: trainer.init_from={config.trainer.init_from} brings its tokenizer, "
                f"which has {key}={found[key]}. Leave the key out, or give the new run a tokenizer of its own with "
                "trainer.init_tokenizer=own"
            )
    return replace(config, tokenizer=tokenizer)


def base_tokenizers(config: Config, folder: RunFolder | None) -> Tokenizers | None:
    """Loads the tokenizers that a run takes from the run that it starts from; None if it trains its own.

    A run that has a checkpoint has a copy of them in its folder, None for a command that has none.

    Raises:
        UserError: If there is no such run.
    """
    if not _takes_base_tokenizer(config):
        return None
    if _stands_alone(config, folder):
        assert folder is not None
        return load_tokenizers(folder.tokenizer)
    assert config.trainer.init_from is not None
    return load_tokenizers(base_folder(config.trainer.init_from).tokenizer)


def _takes_base_tokenizer(config: Config) -> bool:
    return config.trainer.init_from is not None and config.trainer.init_tokenizer is InitTokenizer.base


def _stands_alone(config: Config, folder: RunFolder | None) -> bool:
    """Whether the run has a checkpoint, and so needs nothing of the run that it started from."""
    return folder is not None and not config.overwrite and folder.holds_run()
