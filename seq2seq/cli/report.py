"""`seq2seq report`: the runs below a folder, ranked."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from seq2seq.cli import application
from seq2seq.config.commands import ReportConfig
from seq2seq.errors import UserError
from seq2seq.runs import report


def run(arguments: list[str]) -> None:
    """Runs the verb; a first argument that is a path stands for ``folder=PATH``."""
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        quoted = arguments[0].replace("\\", "\\\\").replace('"', '\\"')
        arguments = [f'folder="{quoted}"', *arguments[1:]]
    application.run("report", table, arguments, schema=ReportConfig)


def table(values: DictConfig) -> None:
    """Prints the table."""
    if OmegaConf.is_missing(values, "folder"):
        raise UserError("folder= is missing: give the folder that has the runs, such as outputs/comparison")
    settings = OmegaConf.to_object(values)
    assert isinstance(settings, ReportConfig)
    print(report.sweep_table(Path(settings.folder), format=settings.format.value))
