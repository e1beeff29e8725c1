"""`seq2seq evaluate`: a run's checkpoint, scored on its test sets or on others."""

import logging
import re

from omegaconf import DictConfig

from seq2seq import config as configuration
from seq2seq import report
from seq2seq.api import build_evaluator, build_generator
from seq2seq.cli import application, run_argument
from seq2seq.config import EvaluateConfig
from seq2seq.data.prepare import open_corpus
from seq2seq.errors import UserError
from seq2seq.provenance import environment
from seq2seq.results import score_baselines, score_tests, write_generations
from seq2seq.run_folder import write_json
from seq2seq.runtime import build_runtime, console_log, keep_freed_memory, set_threads

LOGGER = logging.getLogger("seq2seq")


def run(arguments: list[str]) -> None:
    """Runs the verb."""
    defaults = run_argument.defaults(arguments, EvaluateConfig)
    application.run("evaluate", evaluate, arguments, schema=EvaluateConfig, defaults=defaults)


def evaluate(values: DictConfig) -> None:
    """Scores, prints a table, and keeps scores and outputs in the run folder under ``evaluations/``."""
    run_argument.require(values)
    config = configuration.parse(values, EvaluateConfig)
    assert isinstance(config, EvaluateConfig)
    folders = run_argument.run_folders(config.run)
    set_threads(config.trainer.threads)
    keep_freed_memory()
    with console_log():
        runtime = build_runtime(config.trainer.device, config.trainer.precision)
        generator = build_generator(folders, config, checkpoint=config.checkpoint, runtime=runtime)
        tokenizers = generator.tokenizers
        stores = {
            name: open_corpus(config.data.test[name], tokenizers, config.data, key=f"data.test.{name}")
            for name in _chosen(config)
        }
        evaluator = build_evaluator(config, tokenizers, runtime=runtime)
        scores, outputs = score_tests(evaluator, generator.models, stores)
        results = {
            "run": [str(folder.path) for folder in folders],
            "checkpoint": config.checkpoint,
            "search": configuration.to_mapping(config)["search"],
            "test": scores,
            "baselines": score_baselines(evaluator, stores),
            "environment": environment(runtime),
        }
        checkpoint = re.sub(r"[^A-Za-z0-9._-]+", "_", config.checkpoint).lstrip(".")  # not `..`
        place = folders[0].path / "evaluations" / (checkpoint or "checkpoint")
        write_json(place / "results.json", results)
        write_generations(place, outputs)
        print(report.results_table(results))
        LOGGER.info("scores and outputs: %s", place)


def _chosen(config: EvaluateConfig) -> list[str]:
    """The test sets to score: those typed on the command line where any are, else all of the run's."""
    named = [key.split(".")[2] for key in run_argument.typed("data.test.")]
    chosen = [name for name in config.data.test if name in named] or list(config.data.test)
    if not chosen:
        raise UserError(
            "there is no test set to score: name one with +data.test.NAME.source=FILE +data.test.NAME.target=FILE"
        )
    return chosen
