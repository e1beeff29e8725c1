"""All commands: each calls the function that does the work, mostly in `pipeline`, with its configuration."""

import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from seq2seq.cli import hydra_app, train
from seq2seq.cli.imports import importing
from seq2seq.config import saved
from seq2seq.config.commands import (
    AverageConfig,
    CheckConfig,
    CompareConfig,
    EvaluateConfig,
    GenerateConfig,
    GenerateFormat,
    ReportConfig,
    TableFormat,
    as_list,
)
from seq2seq.config.given import require_effect, require_used_by
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder, require_run


def run(command: str, arguments: list[str]) -> None:
    """Runs a command with the arguments of the command line."""
    if command == "train":
        train.run(arguments)
        return
    if command == "report" and arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        quoted = arguments[0].replace("\\", "\\\\").replace('"', '\\"')
        arguments = [f'folder="{quoted}"', *arguments[1:]]  # a path as first argument
    function, schema = _COMMANDS[command]
    hydra_app.run(command, function, arguments, schema=schema)


def _check(settings: CheckConfig) -> None:
    config = Config(**{entry.name: getattr(settings, entry.name) for entry in fields(Config)})
    config, folder = train.resumed(config)
    overrides, _ = hydra_app.job_overrides()
    command = shlex.join(["seq2seq", "train", *(each for each in overrides if not each.startswith("format="))])
    with importing():
        from seq2seq.preflight.check import check
    check(config, folder, command=command, format=settings.format, given=hydra_app.given_keys())


def _prepare(config: Config) -> None:
    from seq2seq.pipeline.base_run import with_base_tokenizer
    from seq2seq.pipeline.prepare import prepare

    given = hydra_app.given_keys()
    config = with_base_tokenizer(config, None, given=given)
    require_effect(config, given)
    prepare(config)


def _evaluate(config: EvaluateConfig) -> None:
    folders = _trained_runs("evaluate", config)
    with importing():
        from seq2seq.pipeline.evaluate import evaluate
    evaluate(config, folders, given=hydra_app.given_keys())


def _generate(config: GenerateConfig) -> None:
    folders = _trained_runs("generate", config)
    if config.format is GenerateFormat.text and config.search.n_best > 1 and "search.n_best" in hydra_app.given_keys():
        raise UserError(f"search.n_best={config.search.n_best} needs format=jsonl: text has one line per input line")
    with importing():
        from seq2seq.pipeline.generate import generate
    generate(config, folders)


def _trained_runs(command: str, config: EvaluateConfig) -> list[RunFolder]:
    """Returns the runs that a command names; refuses other keys on the command line that could have no effect."""
    given = hydra_app.given_keys()
    require_used_by(command, given)
    require_effect(config, given)
    return [require_run(path) for path in as_list(config.run)]


def _average(settings: AverageConfig) -> None:
    folder = require_run(settings.run)
    config = saved.load(folder.config)
    with importing():
        from seq2seq.pipeline.average import average
    average(config, folder, settings)


def _report(settings: ReportConfig) -> None:
    from seq2seq.runs.tables import sweep_table

    print(sweep_table(Path(settings.folder), as_json=settings.format is TableFormat.json))


def _compare(settings: CompareConfig) -> None:
    from seq2seq.pipeline.compare import compare

    compare(settings, given=hydra_app.given_keys())


_COMMANDS: dict[str, tuple[Callable[[Any], None], type]] = {
    "check": (_check, CheckConfig),
    "prepare": (_prepare, Config),
    "evaluate": (_evaluate, EvaluateConfig),
    "generate": (_generate, GenerateConfig),
    "average": (_average, AverageConfig),
    "report": (_report, ReportConfig),
    "compare": (_compare, CompareConfig),
}
