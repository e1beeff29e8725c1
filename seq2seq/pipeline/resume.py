"""The configuration of a run that is resumed."""

import json
import shlex
from collections.abc import Sequence

from seq2seq.config import saved
from seq2seq.config.compose import override_key
from seq2seq.config.schema import Config
from seq2seq.runs.folder import RunFolder


def restore_run_values(config: Config, folder: RunFolder, overrides: Sequence[str]) -> Config:
    """Restores the run's values of the keys that matter for the weights, unless the command line sets them now.

    So the same command resumes a run even if defaults have changed since.

    Args:
        config: Configuration as composed now.
        folder: The run folder.
        overrides: Overrides of the command line; in a sweep, those of this job.

    Raises:
        UserError: If the saved configuration is damaged.
    """
    if config.overwrite or not folder.holds_run() or not folder.config.exists():
        return config
    earlier = _earlier_overrides(folder)
    given = {override_key(override) for override in overrides if not _was_given(override, earlier)}
    if given & {"experiment", "debug"}:
        return config  # they may set any key
    return saved.for_resume(saved.load(folder.config), config, given=given)


def _earlier_overrides(folder: RunFolder) -> list[str]:
    """Reads the overrides of the command that started or last resumed the run; none if they are unknown."""
    try:
        command = json.loads(folder.provenance.read_text(encoding="utf-8"))["command"]
        return [word for word in shlex.split(command) if "=" in word or word.startswith("~")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _was_given(override: str, earlier: Sequence[str]) -> bool:
    """Returns whether the earlier command had this override, or swept over this value among others."""
    key, _, value = override.partition("=")
    swept = (each.partition("=") for each in earlier)
    return override in earlier or any(name == key and value in values.split(",") for name, _, values in swept)
