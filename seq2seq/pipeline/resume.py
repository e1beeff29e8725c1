"""The configuration of a run that is resumed."""

import json
import shlex
from collections.abc import Sequence

from seq2seq.config import saved
from seq2seq.config.schema import Config
from seq2seq.runs.folder import RunFolder


def with_values_of_run(config: Config, folder: RunFolder, overrides: Sequence[str]) -> Config:
    """Gives the keys that matter for the weights the values of the run in the folder, unless the command line does.

    The same command thus resumes a run whatever has become of the defaults since.

    Args:
        config: As composed.
        folder: Of the run.
        overrides: Of the command line; those of this job where it is one of a sweep.

    Raises:
        UserError: If the saved configuration is damaged.
    """
    if config.overwrite or not folder.config.exists():
        return config
    before = _overrides_of_run(folder)
    given = {_key(override) for override in overrides if not _was_given(override, before)}
    return saved.resumed(saved.load(folder.config), config, given=given)


def _overrides_of_run(folder: RunFolder) -> list[str]:
    """Those of the command that began the run or resumed it last; none if nobody knows."""
    try:
        command = json.loads(folder.provenance.read_text(encoding="utf-8"))["command"]
        return [word for word in shlex.split(command) if "=" in word or word.startswith("~")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _was_given(override: str, before: Sequence[str]) -> bool:
    """Whether the command before had the override, or a sweep with this value among others."""
    key, _, value = override.partition("=")
    named = (each.partition("=") for each in before)
    return override in before or any(name == key and value in values.split(",") for name, _, values in named)


def _key(override: str) -> str:
    """The key or section that an override gives; ``""`` is all of them: an experiment may set any."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return "" if key == "experiment" else key
