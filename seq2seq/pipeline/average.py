"""`seq2seq average`: averages checkpoints of a run into a new one."""

import logging
from dataclasses import replace

from seq2seq.config.commands import AverageConfig, AverageOf
from seq2seq.config.schema import Config
from seq2seq.data.prepare import open_corpus
from seq2seq.errors import UserError
from seq2seq.pipeline.build import build_evaluator, start_runtime
from seq2seq.pipeline.load import load_model
from seq2seq.runs import averaging, tables
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.system.config import Device
from seq2seq.system.console import console_log
from seq2seq.tokenizers.pair import load_tokenizers
from seq2seq.training.state import TrainState

logger = logging.getLogger("seq2seq")


def average(config: Config, folder: RunFolder, settings: AverageConfig) -> None:
    """Writes ``checkpoints/average`` and compares it with the best checkpoint on the validation set."""
    with folder.lock(), console_log():
        store = CheckpointStore(folder.checkpoints)
        last = store.load("last", files=[])
        state = TrainState.from_json(last.state)
        steps = select_steps(state.without_interruptions(store.steps()), state.ranked(config.trainer.mode), settings)
        weights = averaging.average([store.resolve(str(step)) for step in steps])
        store.save(max(steps), {"model": weights}, {"averaged": steps}, fingerprints=last.fingerprints, name="average")
        runtime = start_runtime(replace(config.trainer, device=Device.auto))
        tokenizers = load_tokenizers(folder.tokenizer)
        valid = open_corpus(config.data.valid, tokenizers, config.data, key="data.valid")
        evaluator = build_evaluator(config, tokenizers, runtime=runtime)
        rows = {}
        for name in ("average", "best"):
            model, _ = load_model(folder, config, tokenizers, checkpoint=name, runtime=runtime)
            rows[name], _ = evaluator.validate(model, valid, examples=config.trainer.eval_examples)
        if len(steps) == 1:
            logger.warning(
                "there is only one checkpoint to average, so checkpoints/average is a copy of it; a run with a higher "
                "trainer.keep_last or trainer.keep_best keeps more"
            )
        print(f"checkpoints/average is the mean of steps {', '.join(map(str, steps))}")
        print(tables.metrics_table(rows))


def select_steps(steps: list[int], ranked: list[int], settings: AverageConfig) -> list[int]:
    """Selects the steps to average among those that have a checkpoint, without those of interruptions.

    Raises:
        UserError: If there are none, or fewer than ``count``.
    """
    order = steps[::-1] if settings.which is AverageOf.last else [step for step in ranked if step in steps]
    if not order:
        raise UserError(
            f"which={settings.which.value}: there is no checkpoint to average yet; the one of an interruption is used "
            "to resume only"
        )
    count = len(order) if settings.count is None else settings.count
    if count < 1:
        raise UserError(f"count={count}: must be at least 1, or null for all checkpoints that are kept")
    if count > len(order):
        raise UserError(
            f"count={count}: there are only {len(order)} checkpoints to average; a run with a "
            "higher trainer.keep_last or trainer.keep_best keeps more"
        )
    return sorted(order[:count])
