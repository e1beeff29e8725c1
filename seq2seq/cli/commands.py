"""All commands: each parses its configuration and calls the function that does the work, mostly in `pipeline`."""

import shlex
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from seq2seq.cli import hydra_app, run_argument
from seq2seq.cli.imports import importing
from seq2seq.config import saved
from seq2seq.config.commands import (
    AverageConfig,
    CheckConfig,
    CompareConfig,
    EvaluateConfig,
    GenerateConfig,
    ReportConfig,
)
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.pipeline.resume import restore_run_values
from seq2seq.runs.folder import RunFolder, require_run


def train(arguments: list[str]) -> None:
    """Trains one run, or each job of a sweep."""
    from seq2seq.cli.train import run

    run(arguments)


def check(arguments: list[str]) -> None:
    """Checks in seconds whether `train` with the same arguments would work."""
    hydra_app.run("check", _check, arguments, schema=CheckConfig)


def _check(values: DictConfig) -> None:
    from seq2seq.cli.train import run_path

    settings = parse(values, CheckConfig)
    config = Config(**{entry.name: getattr(settings, entry.name) for entry in fields(Config)})
    folder = RunFolder(run_path(config))
    overrides, _ = hydra_app.job_overrides()
    config = restore_run_values(config, folder, overrides)
    command = shlex.join(["seq2seq", "train", *(each for each in overrides if not each.startswith("format="))])
    with importing():
        from seq2seq.preflight.check import check
    check(config, folder, command=command, format=settings.format)


def prepare(arguments: list[str]) -> None:
    """Prepares the tokenizer and the token store, without training."""
    hydra_app.run("prepare", _prepare, arguments, schema=Config)


def _prepare(values: DictConfig) -> None:
    from seq2seq.pipeline.prepare import prepare

    prepare(parse(values))


def evaluate(arguments: list[str]) -> None:
    """Scores a run's checkpoint on its test sets or on others."""
    defaults = run_argument.defaults(arguments, EvaluateConfig)
    hydra_app.run("evaluate", _evaluate, arguments, schema=EvaluateConfig, defaults=defaults)


def _evaluate(values: DictConfig) -> None:
    run_argument.require(values)
    config = parse(values, EvaluateConfig)
    folders = run_argument.run_folders(config.run)
    named = [key.split(".")[2] for key in run_argument.given("data.test.")]
    tests = [name for name in config.data.test if name in named] or list(config.data.test)
    if not tests:
        raise UserError(
            "there is no test set to score: add one with +data.test.NAME.source=FILE +data.test.NAME.target=FILE"
        )
    with importing():
        from seq2seq.pipeline.evaluate import evaluate
    evaluate(config, folders, tests=tests)


def generate(arguments: list[str]) -> None:
    """Writes one output line per input line, in order."""
    defaults = run_argument.defaults(arguments, GenerateConfig)
    hydra_app.run("generate", _generate, arguments, schema=GenerateConfig, defaults=defaults)


def _generate(values: DictConfig) -> None:
    run_argument.require(values)
    config = parse(values, GenerateConfig)
    folders = run_argument.run_folders(config.run)
    with importing():
        from seq2seq.pipeline.generate import generate
    generate(config, folders)


def average(arguments: list[str]) -> None:
    """Averages checkpoints of a run into a new one."""
    hydra_app.run("average", _average, arguments, schema=AverageConfig)


def _average(values: DictConfig) -> None:
    run_argument.require(values)
    settings = parse(values, AverageConfig)
    folder = require_run(settings.run)
    config = saved.load(folder.config)
    with importing():
        from seq2seq.pipeline.average import average
    average(config, folder, settings)


def report(arguments: list[str]) -> None:
    """Ranks the runs below a folder; a path as first argument stands for ``folder=PATH``."""
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        quoted = arguments[0].replace("\\", "\\\\").replace('"', '\\"')
        arguments = [f'folder="{quoted}"', *arguments[1:]]
    hydra_app.run("report", _report, arguments, schema=ReportConfig)


def _report(values: DictConfig) -> None:
    from seq2seq.runs.tables import sweep_table

    if OmegaConf.is_missing(values, "folder"):
        raise UserError("folder= is missing: give the folder that contains the runs, such as outputs/comparison")
    settings = parse(values, ReportConfig)
    print(sweep_table(Path(settings.folder), format=settings.format.value))


def compare(arguments: list[str]) -> None:
    """Compares runs, or files of outputs, on the same references."""
    defaults = run_argument.compare_defaults(arguments)
    hydra_app.run("compare", _compare, arguments, schema=CompareConfig, defaults=defaults)


def _compare(values: DictConfig) -> None:
    from seq2seq.pipeline.compare import compare

    settings = parse(values, CompareConfig)
    compare(settings, given=run_argument.given())
