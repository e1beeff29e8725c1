"""The arguments `run=DIR` and `folder=DIR`: the run whose saved configuration a command starts from."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig, EvaluateConfig, as_list
from seq2seq.config.compose import run_defaults
from seq2seq.errors import UserError
from seq2seq.runs.folder import require_run

_EXAMPLES = {
    "run": "the run folder, such as run=outputs/demo_translation",
    "folder": "the folder that contains the runs, such as outputs/comparison",
}


def defaults(arguments: list[str], schema: type) -> DictConfig | None:
    """Returns the schema of a command with the values of the run named in the arguments as defaults.

    None if the command does not start from a run's values, or without `run=` (`--help`, `compare` with files).

    Raises:
        UserError: If the folder is not a run folder, or `compare` is given several.
    """
    paths = run_paths(arguments) if issubclass(schema, EvaluateConfig | CompareConfig) else []
    if not paths:
        return None
    if len(paths) > 1 and schema is CompareConfig:
        raise UserError(f"run=[{','.join(paths)}]: the baseline must be one run; name the others in other=[...]")
    return run_defaults(saved.load(require_run(paths[0]).config), schema)


def run_paths(arguments: list[str]) -> list[str]:
    """Returns the paths given as ``run=``: one, or those of a list; none if it is not given."""
    for argument in arguments:
        if not argument.startswith("run="):
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            raise UserError(
                f"cannot read {argument!r}: a path with = , ( ) [ ] {{ }} needs inner quotes: 'run=\"a path\"'"
            ) from error
        if override.is_sweep_override():
            raise UserError(f"{argument}: this command takes one run at a time; run it once per run")
        return as_list(override.value())
    return []


def require_folder(values: DictConfig, schema: type) -> None:
    """Raises a UserError if the command needs a folder, a run's or one of runs, and the configuration names none."""
    if schema is CompareConfig:
        return  # it also compares files
    for key, example in _EXAMPLES.items():
        if OmegaConf.is_missing(values, key) or (key in values and values[key] in (None, "", [])):
            raise UserError(f"{key}= is missing: give {example}")
