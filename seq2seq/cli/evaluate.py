"""`seq2seq evaluate`: a run's checkpoint, scored on its test sets or on others."""

from omegaconf import DictConfig

from seq2seq.cli import application, run_argument
from seq2seq.cli.imports import importing
from seq2seq.config.commands import EvaluateConfig
from seq2seq.config.parse import parse
from seq2seq.errors import UserError


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    defaults = run_argument.defaults(arguments, EvaluateConfig)
    application.run("evaluate", _evaluate, arguments, schema=EvaluateConfig, defaults=defaults)


def _evaluate(values: DictConfig) -> None:
    run_argument.require(values)
    config = parse(values, EvaluateConfig)
    assert isinstance(config, EvaluateConfig)
    folders = run_argument.run_folders(config.run)
    tests = _chosen(config)
    with importing():
        from seq2seq.pipeline.evaluate import evaluate
    evaluate(config, folders, tests=tests)


def _chosen(config: EvaluateConfig) -> list[str]:
    """The test sets to score: those typed on the command line where any are, else all of the run's."""
    named = [key.split(".")[2] for key in run_argument.typed("data.test.")]
    chosen = [name for name in config.data.test if name in named] or list(config.data.test)
    if not chosen:
        raise UserError(
            "there is no test set to score: name one with +data.test.NAME.source=FILE +data.test.NAME.target=FILE"
        )
    return chosen
