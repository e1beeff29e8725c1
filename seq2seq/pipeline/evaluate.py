"""`seq2seq evaluate`: scores a run's checkpoint on its test sets or on others."""

import logging
import re
from collections.abc import Sequence

from seq2seq.config import saved
from seq2seq.config.commands import EvaluateConfig, named_tests
from seq2seq.data.prepare import open_corpus
from seq2seq.errors import UserError
from seq2seq.pipeline.build import build_evaluator, start_runtime
from seq2seq.pipeline.load import build_generator
from seq2seq.pipeline.results import score_baselines, score_tests, write_generations
from seq2seq.runs import tables
from seq2seq.runs.folder import RunFolder, write_json
from seq2seq.runs.provenance import environment
from seq2seq.system.console import console_log

logger = logging.getLogger("seq2seq")


def evaluate(config: EvaluateConfig, folders: Sequence[RunFolder], *, given: Sequence[str]) -> None:
    """Scores, prints a table, and writes scores and outputs to ``evaluations/`` in the first run's folder.

    Args:
        config: Configuration of the first run, with the overrides of the command line.
        folders: The run folder, or those of the members of an ensemble.
        given: Keys given on the command line. If they name test sets, only these are scored.

    Raises:
        UserError: If there is no test set.
    """
    tests = named_tests(config.data, given) or list(config.data.test)
    if not tests:
        raise UserError(
            "there is no test set to score: add one with +data.test.NAME.source=FILE +data.test.NAME.target=FILE"
        )
    with console_log():
        runtime = start_runtime(config.trainer)
        generator = build_generator(folders, config, checkpoint=config.checkpoint, runtime=runtime)
        tokenizers = generator.tokenizers
        stores = {
            name: open_corpus(config.data.test[name], tokenizers, config.data, key=f"data.test.{name}")
            for name in tests
        }
        evaluator = build_evaluator(config, tokenizers, runtime=runtime)
        scores, outputs = score_tests(evaluator, generator.models, stores)
        results = {
            "run": [str(run.path) for run in folders],
            "checkpoint": config.checkpoint,
            "search": saved.to_mapping(config)["search"],
            "test": scores,
            "baselines": score_baselines(evaluator, stores),
            "environment": environment(runtime),
        }
        checkpoint = re.sub(r"[^A-Za-z0-9._-]+", "_", config.checkpoint).lstrip(".")  # not `..`
        folder = folders[0].path / "evaluations" / (checkpoint or "checkpoint")
        write_json(folder / "results.json", results)
        write_generations(folder, outputs)
        print(tables.results_table(results))
        logger.info("scores and outputs written to %s", folder)
