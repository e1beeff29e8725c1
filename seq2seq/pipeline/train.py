"""`seq2seq train`: prepare, build, fit, score."""

import logging
import math
from collections.abc import Collection
from dataclasses import asdict, replace

from seq2seq.config import saved
from seq2seq.config.oddities import odd_keys
from seq2seq.config.schema import Config
from seq2seq.data.prepare import PreparedData, open_corpus
from seq2seq.data.report import report_lines
from seq2seq.errors import Interrupted, TrainingError
from seq2seq.pipeline.build import base_fingerprint, build_evaluator, build_training, start_runtime
from seq2seq.pipeline.existing_run import (
    latest_checkpoint,
    objective_if_complete,
    require_replaceable,
    require_same_config,
    require_same_content,
)
from seq2seq.pipeline.load import load_model
from seq2seq.pipeline.prepare import prepare_data
from seq2seq.pipeline.results import finite_objective, score_baselines, score_tests, scores_by_tag, write_generations
from seq2seq.runs import tables
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder, write_json, write_text
from seq2seq.runs.provenance import environment, provenance
from seq2seq.runs.tracking import Tracker
from seq2seq.system.console import console_log
from seq2seq.system.device import Runtime, deterministic, is_out_of_memory
from seq2seq.system.distributed import World
from seq2seq.system.files import remove
from seq2seq.tokenizers.pair import load_tokenizers
from seq2seq.training.profiling import StepProfiler
from seq2seq.training.trainer import Trainer, TrainingContext
from seq2seq.training.validation import Validator

logger = logging.getLogger("seq2seq")


def train(config: Config, folder: RunFolder, world: World, *, given: Collection[str] = ()) -> float:
    """Trains or resumes one run and scores it.

    Args:
        config: The run's configuration.
        folder: The run's folder.
        world: The processes of the run.
        given: Keys given on the command line: those at odds with others are told.

    Returns:
        The objective for sweepers: the best value of ``trainer.metric``, always finite.
    """
    runtime = start_runtime(config.trainer, local_rank=world.local_rank)
    world.start(runtime.device.type, timeout_minutes=config.trainer.timeout_minutes)
    try:
        if world.is_main:
            folder.create()
            with folder.lock(), console_log(file=folder.log), deterministic(config.trainer.deterministic):
                for message in odd_keys(config, given).values():
                    logger.warning("%s", message)
                try:
                    return _run(config, folder, runtime=runtime, world=world)
                finally:
                    folder.restore_earlier()
        with console_log(quiet=True), deterministic(config.trainer.deterministic):
            return _run(config, folder, runtime=runtime, world=world)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]  # empty for Python's own MemoryError
        raise TrainingError(
            f"out of memory{f' ({reason})' if reason else ''}: lower trainer.batch_tokens="
            f"{config.trainer.batch_tokens} and raise trainer.accumulate by the same factor; or, if it happened while "
            f"scoring, lower search.batch_size={config.search.batch_size} or "
            f"search.batch_tokens={config.search.batch_tokens}"
        ) from error


def _run(config: Config, folder: RunFolder, *, runtime: Runtime, world: World) -> float:
    """Prepares the data, builds the trainer, trains and scores; returns the objective."""
    world.barrier()  # waits until the main rank holds the folder's lock
    if config.overwrite:
        require_replaceable(config, folder)
    else:
        require_same_config(config, folder)
        objective = objective_if_complete(config, folder)
        if objective is not None:
            _score_new_tests(config, folder, runtime=runtime, world=world)
            return objective
    prepared = prepare_data(config, folder)
    checkpoints = CheckpointStore(folder.checkpoints)
    checkpoint = None if config.overwrite else latest_checkpoint(checkpoints, world)
    fingerprints = prepared.fingerprints | saved.fingerprints(config) | base_fingerprint(config, folder, checkpoint)
    if checkpoint is not None:
        require_same_content(checkpoint, fingerprints, folder)
    train_step, loader = build_training(
        config, prepared, runtime=runtime, world=world, load_pretrained=checkpoint is None
    )
    if world.is_main:
        if config.overwrite and folder.config.exists():
            folder.earlier.set_aside()  # only now: until here an error in data or configuration would have shown
        _write_run_info(config, folder, prepared, runtime=runtime, world=world)
    tracker = Tracker(folder.path if world.is_main else None, resume_step=checkpoint.step if checkpoint else None)
    try:
        named_parameters = train_step.model.named_parameters()
        logger.info("%s", tables.parameter_table((name, p.numel()) for name, p in named_parameters))
        profiler = StepProfiler(config.trainer.profile_steps if world.is_main else None, folder.profile, runtime.device)
        context = TrainingContext(
            runtime, world, tracker, checkpoints, profiler, fingerprints, on_save=folder.earlier.discard
        )
        trainer = Trainer(
            train_step, loader, validator=_validator(config, prepared, context), config=config.trainer,
            optim_config=config.optim, context=context,
        )  # fmt: skip
        if checkpoint is not None:
            logger.info("resuming from step %d (%s)", checkpoint.step, checkpoint.path)
            trainer.restore(checkpoint)
        else:
            tracker.hparams(saved.hyper_parameters(config), [config.trainer.metric])
        logger.info("training on %s in %s", runtime.device, runtime.precision.value)
        reason = trainer.fit(background_task=prepared.verify)
        logger.info("training is complete: %s", reason)
        trainer.average()
        return _finish(config, folder, prepared, trainer=trainer, context=context)
    except Interrupted as stop:
        if not config.overwrite or not folder.holds_run():  # without a checkpoint, the earlier run comes back
            raise
        raise Interrupted(f"{stop}, without overwrite=true", stop.exit_code) from None
    finally:
        tracker.close()


def _score_new_tests(config: Config, folder: RunFolder, *, runtime: Runtime, world: World) -> None:
    """Scores the test sets of which a complete run has no scores yet, as it did the others, and adds them."""
    results = folder.read_results()
    assert results is not None, "the run is complete"
    new = {name: corpus for name, corpus in config.data.test.items() if name not in results["test"]}
    if not new:
        logger.info("nothing to do")
        return
    run = saved.load(folder.config)
    tokenizers = load_tokenizers(folder.tokenizer)
    stores = {
        name: open_corpus(corpus, tokenizers, config.data, key=f"data.test.{name}") for name, corpus in new.items()
    }
    checkpoint = "best" if (folder.checkpoints / "best").exists() else "last"
    model, step = load_model(folder, run, tokenizers, checkpoint=checkpoint, runtime=runtime)
    logger.info("scoring the checkpoint of step %d on new test sets: %s", step, ", ".join(new))
    evaluator = build_evaluator(run, tokenizers, runtime=runtime, world=world)
    test, generations = score_tests(evaluator, [model], stores)
    if world.is_main:
        results["test"] |= test
        results["baselines"] = results.get("baselines", {}) | score_baselines(evaluator, stores)
        write_generations(folder.generations, generations)
        data = replace(run.data, root=config.data.root, test={**run.data.test, **config.data.test})
        write_text(folder.config, saved.to_yaml(replace(run, data=data)))
        write_json(folder.results, results)
        logger.info("%s", tables.results_table(results))


def _write_run_info(
    config: Config, folder: RunFolder, prepared: PreparedData, *, runtime: Runtime, world: World
) -> None:
    """Writes configuration, provenance, tokenizer and data report before the first step, and logs them."""
    write_text(folder.config, saved.to_yaml(config))
    write_json(folder.provenance, provenance(prepared.fingerprints, runtime, world_size=world.size))
    if not folder.holds_run():
        remove(folder.tokenizer)  # of a start that failed, perhaps with other files
    prepared.tokenizers.save(folder.tokenizer)
    write_json(folder.path / "data_report.json", {name: asdict(report) for name, report in prepared.reports.items()})
    folder.results.unlink(missing_ok=True)
    for line in report_lines(prepared.reports):
        logger.info("%s", line)


def _validator(config: Config, prepared: PreparedData, context: TrainingContext) -> Validator:
    evaluator = build_evaluator(config, prepared.tokenizers, runtime=context.runtime, world=context.world)
    return Validator(
        evaluator,
        prepared.valid,
        tracker=context.tracker,
        examples=config.trainer.eval_examples,
        samples=config.trainer.samples if context.world.is_main else 0,
        images=config.trainer.attention_images if context.world.is_main else 0,
    )


def _finish(
    config: Config, folder: RunFolder, prepared: PreparedData, *, trainer: Trainer, context: TrainingContext
) -> float:
    """Scores the best checkpoint, writes outputs and results, and returns the objective."""
    runtime, world, state = context.runtime, context.world, trainer.state
    world.barrier()
    name = "last" if state.best(config.trainer.mode) is None else "best"  # last: no evaluation was finite
    model, best_step = load_model(folder, config, prepared.tokenizers, checkpoint=name, runtime=runtime)
    evaluator = build_evaluator(config, prepared.tokenizers, runtime=runtime, world=world)
    logger.info("scoring the checkpoint of step %d on %d test sets", best_step, len(prepared.test))
    valid, _ = evaluator.validate(model, prepared.valid, examples=config.trainer.eval_examples)
    if not math.isfinite(valid["loss"]):
        raise TrainingError(
            f"the loss on the validation set is not a finite number, even at step {best_step}: the run has diverged. "
            "Start over (overwrite=true) with a smaller optim.lr or more optim.warmup_steps"
        )
    test, generations = score_tests(evaluator, [model], prepared.test)
    value = valid.get(config.trainer.metric.removeprefix("valid/"))
    objective = finite_objective(value, config.trainer.mode)
    results = {
        "name": config.name,
        "complete": True,
        "best_step": best_step,
        "objective": {"metric": config.trainer.metric, "mode": config.trainer.mode, "value": objective},
        "model": {"parameters": sum(p.numel() for p in model.parameters())},
        "train": {
            "steps": state.step,
            "skipped_updates": state.skipped,
            "epochs": round(state.epochs, 4),
            "seconds": round(state.seconds, 2),
            "target_tokens": state.target_tokens,
            "target_tokens_per_sec": round(state.target_tokens / max(state.step_seconds, 1e-9), 1),
        },
        "valid": valid,
        "test": test,
        "baselines": score_baselines(evaluator, prepared.test) if world.is_main else {},
        "environment": environment(runtime),
    }
    if world.is_main:
        write_generations(folder.generations, generations)
        context.tracker.log(state.step, scores_by_tag(test))
        write_json(folder.results, results)
        logger.info("%s", tables.results_table(results))
        logger.info("run folder: %s   curves: tensorboard --logdir %s", folder.path, folder.path)
    return objective
