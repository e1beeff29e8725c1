"""`run=DIR`: the run whose saved configuration is the base that a command's overrides change."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from seq2seq.cli import hydra_app
from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig, EvaluateConfig
from seq2seq.config.parse import composable
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.config import Device


def defaults(arguments: list[str], schema: type[EvaluateConfig]) -> DictConfig | None:
    """The configuration of the run named in the arguments, as the defaults of a command.

    Hydra then applies the overrides to the run's values as it does to any others: it checks names and types, adds and
    deletes test sets. None without `run=` (`--help`): the schema's own defaults stay.

    Raises:
        UserError: If the folder is no run.
    """
    paths = named_runs(arguments)
    if not paths:
        return None
    config = saved.load(require_run(paths[0]).config)
    node = composable(schema)
    with open_dict(node):
        node.model = OmegaConf.structured(config.model)
        node.merge_with(OmegaConf.create(saved.to_mapping(config)))
        node.trainer.device = Device.auto  # the machine may be another one
    return node


def defaults_of_comparison(arguments: list[str]) -> DictConfig | None:
    """The configuration of `compare` with the data and metrics of the first run; None where files are compared.

    Raises:
        UserError: If the folder is no run, or several are given.
    """
    paths = named_runs(arguments)
    if not paths:
        return None
    if len(paths) > 1:
        raise UserError(f"run=[{','.join(paths)}]: the baseline is one run; name those compared with it in other=[...]")
    values = saved.to_mapping(saved.load(require_run(paths[0]).config))
    node = OmegaConf.structured(CompareConfig)
    assert isinstance(node, DictConfig)
    node.merge_with({key: values[key] for key in ("data", "metrics")})
    return node


def named_runs(arguments: list[str]) -> list[str]:
    """The paths behind ``run=``: one, or the members of a list; none if it is not given."""
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
            raise UserError(f"{argument}: this command takes one run at a time; call it once for each")
        value = override.value()
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return []


def require(values: DictConfig) -> None:
    """Raises a UserError unless the configuration names a run."""
    if OmegaConf.is_missing(values, "run") or values.run in (None, "", []):
        raise UserError("run= is missing: give the run folder, such as run=outputs/demo_translation")


def run_folders(run: object) -> list[RunFolder]:
    """The folders behind the key ``run``: a path, or a list of them.

    Raises:
        UserError: If one is no run.
    """
    return [require_run(str(path)) for path in (run if isinstance(run, list) else [run])]


def given(prefix: str = "") -> list[str]:
    """The keys below a prefix that the command line sets, adds or deletes."""
    overrides, _ = hydra_app.overrides_of_job()
    keys = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
    return [key for key in keys if key.startswith(prefix)]
