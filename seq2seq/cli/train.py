"""`seq2seq train`: trains one run, or each job of a sweep."""

import hashlib
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from seq2seq.cli import hydra_app
from seq2seq.cli.imports import importing
from seq2seq.config import saved
from seq2seq.config.given import require_effect
from seq2seq.config.schema import Config
from seq2seq.errors import TrainingError, UserError
from seq2seq.pipeline.base_run import with_base_tokenizer
from seq2seq.pipeline.resume import restore_run_values
from seq2seq.runs import tables
from seq2seq.runs.folder import RunFolder


def run(arguments: list[str]) -> None:
    """Trains one run, or each job of a sweep, and prints the table of a sweep."""
    swept: set[Path] = set()
    failed: list[Path] = []
    with ExitStack() as at_end:
        hydra_app.run(
            "train", lambda config: _job(config, swept, failed=failed, at_end=at_end), arguments, schema=Config
        )
    for folder in sorted(swept):
        print(tables.sweep_table(folder))
    if failed:
        raise TrainingError(f"jobs that failed (see train.log in each folder): {', '.join(map(str, failed))}")


def _job(config: Config, swept: set[Path], *, failed: list[Path], at_end: ExitStack) -> float:
    """Trains one run and returns its objective; a failed job of a sweep returns the worst one instead.

    Args:
        config: The configuration of the job.
        swept: Receives the folder of the sweep, on the main rank.
        failed: Receives the run folder of a job that failed.
        at_end: Receives callbacks to run after the last job.
    """
    config, folder = resumed(config)
    _, in_sweep = hydra_app.job_overrides()
    given = hydra_app.given_keys()
    config = with_base_tokenizer(config, folder, given=given)
    require_effect(config, given, in_sweep=in_sweep)
    with importing():
        from seq2seq.pipeline.results import finite_objective
        from seq2seq.pipeline.train import train
        from seq2seq.system.distributed import destroy_process_groups, world_from_environment
    at_end.callback(destroy_process_groups)
    world = world_from_environment()
    if world.is_main and in_sweep:
        swept.add(folder.path.parent)
    try:
        return train(config, folder, world, given=given)
    except TrainingError as error:
        if not in_sweep or world.size > 1:  # the other ranks are still training
            raise
        print(f"seq2seq: error: {error}", file=sys.stderr)
        failed.append(folder.path)
        return finite_objective(None, config.trainer.mode)


def resumed(config: Config) -> tuple[Config, RunFolder]:
    """Returns the configuration with the values of the run that it resumes, if there is one, and the run folder.

    In a sweep each job has its own folder below the run's name.

    Raises:
        UserError: If the run has no name, its saved configuration is damaged, or another process replaces it.
    """
    if not config.name:
        raise UserError("name= is empty: give the run a name")
    path = Path(config.output_root) / config.name
    overrides, in_sweep = hydra_app.job_overrides()
    if in_sweep:
        readable = re.sub(r"[^A-Za-z0-9._=-]+", "_", ",".join(overrides))[:60].strip("._")
        identity = replace(config, overwrite=False, name=None, output_root="", cache_root="")
        digest = hashlib.sha256(saved.to_yaml(identity).encode()).hexdigest()[:8]
        path /= f"{readable}-{digest}"
    folder = RunFolder(path)
    folder.settle()
    return restore_run_values(config, folder, overrides), folder
