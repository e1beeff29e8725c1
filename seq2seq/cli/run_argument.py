"""The argument `run=DIR`: the run whose saved configuration a command starts from."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from seq2seq.cli import hydra_app
from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig, EvaluateConfig
from seq2seq.config.parse import hydra_schema
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.config import Device


def defaults(arguments: list[str], schema: type[EvaluateConfig]) -> DictConfig | None:
    """Returns the configuration of the run named in the arguments, as the defaults of a command.

    Hydra applies overrides to these values as to any others: it checks keys and types, adds and deletes test sets.
    None without `run=` (`--help`), which keeps the schema's own defaults.

    Raises:
        UserError: If the folder is not a run folder.
    """
    paths = run_paths(arguments)
    if not paths:
        return None
    config = saved.load(require_run(paths[0]).config)
    node = hydra_schema(schema)
    with open_dict(node):
        node.model = OmegaConf.structured(config.model)
        node.merge_with(OmegaConf.create(saved.to_mapping(config)))
        node.trainer.device = Device.auto  # the machine may be another one
    return node


def compare_defaults(arguments: list[str]) -> DictConfig | None:
    """Returns the configuration of `compare` with the data and metrics of the first run; None when comparing files.

    Raises:
        UserError: If the folder is not a run folder, or several are given.
    """
    paths = run_paths(arguments)
    if not paths:
        return None
    if len(paths) > 1:
        raise UserError(f"run=[{','.join(paths)}]: the baseline must be one run; name the others in other=[...]")
    values = saved.to_mapping(saved.load(require_run(paths[0]).config))
    node = OmegaConf.structured(CompareConfig)
    assert isinstance(node, DictConfig)
    node.merge_with({key: values[key] for key in ("data", "metrics")})
    return node


def run_paths(arguments: list[str]) -> list[str]:
    """Returns the paths given as ``run=``: one, or those of a list; none if it is not given."""
    parser = OverridesParser.create()
    for argument in arguments:
        if not argument.startswith("run="):
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            raise UserError(
                f"cannot read {argument!r}: a path with = , ( ) [ ] {{ }} needs inner quotes: 'run=\"a path\"'"
            ) from error
        if override.is_sweep_override():
            raise UserError(f"{argument}: this command takes one run at a time; run it once per run")
        value = override.value()
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return []


def require(values: DictConfig) -> None:
    """Raises a UserError unless the configuration names a run."""
    if OmegaConf.is_missing(values, "run") or values.run in (None, "", []):
        raise UserError("run= is missing: give the run folder, such as run=outputs/demo_translation")


def run_folders(run: object) -> list[RunFolder]:
    """Returns the run folders of the key ``run``: a path, or a list of paths.

    Raises:
        UserError: If one is not a run folder.
    """
    return [require_run(str(path)) for path in (run if isinstance(run, list) else [run])]


def given(prefix: str = "") -> list[str]:
    """Returns the keys with a prefix that the command line sets, adds or deletes."""
    overrides, _ = hydra_app.job_overrides()
    keys = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
    return [key for key in keys if key.startswith(prefix)]
