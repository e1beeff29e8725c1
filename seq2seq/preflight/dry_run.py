"""Measures memory and speed of a run over a few steps, with its model, optimizer, precision and batches."""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.data.loader import BatchLoader, MicroBatch
from seq2seq.data.prepare import PreparedData
from seq2seq.errors import TrainingError, UserError
from seq2seq.models.base import Seq2Seq
from seq2seq.pipeline.build import build_evaluator, build_training, start_runtime
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.system.device import (
    Runtime,
    deterministic,
    is_out_of_memory,
)
from seq2seq.system.distributed import World
from seq2seq.system.signals import deferred_signals
from seq2seq.training.step import TrainStep

_WARMUP_STEPS = 2  # not timed: the first steps are slower
_MAX_STEPS, _MAX_SECONDS = 20, 6.0  # timing ends after so many steps or seconds, but not before three steps
_DIVISORS = 8, 4, 2  # an eighth, a quarter and a half of the largest batches are tried before the whole
_SAFE_SHARE = 0.8  # of the free memory: a batch that is estimated to need more is not tried
_FORWARD_SHARE = 1 / 3  # of a step's time: a backward pass costs two forward ones (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of training on the largest batches.

    Attributes:
        batches: their shapes: examples, padded source length, padded target length.
        needed_bytes: the peak; of the whole process on a CPU, of tensors on a GPU.
        free_bytes: what was free before.
        measured: false if `needed_bytes` is extrapolated from a part of a batch, since the whole might not fit.
        splits: how often a batch did not fit and was split into halves.
    """

    batches: list[tuple[int, int, int]]
    needed_bytes: int
    free_bytes: int
    measured: bool
    splits: int


@dataclass(frozen=True)
class Speed:
    """Speed of a run in one process.

    Attributes:
        steps: number of steps that were timed.
        step_seconds: seconds per step of average size.
        target_tokens: target tokens of such a step, end of sentence counted.
        steps_per_epoch: steps of one pass over the data.
        evaluation_seconds: estimate for the validation loss and the greedy decoding of `trainer.eval_examples`.
        save_seconds: seconds to save a checkpoint.
        checkpoint_bytes: size of a checkpoint on disk.
    """

    steps: int
    step_seconds: float
    target_tokens: float
    steps_per_epoch: int
    evaluation_seconds: float
    save_seconds: float
    checkpoint_bytes: int


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run.

    Attributes:
        parameters: number of the model's parameters.
        memory: peak memory.
        speed: None if memory might not suffice to measure it.
    """

    parameters: int
    memory: MemoryEstimate
    speed: Speed | None


def dry_run(
    config: Config, prepared: PreparedData, *, free_bytes: int, subsampling: int = 1, load_pretrained: bool = True
) -> DryRun:
    """Measures memory and speed of a run in a child process.

    The peak memory of the child is that of training alone, and if the kernel kills it for lack of memory, this process
    survives and reports it. The child saves one checkpoint, to a temporary folder below ``cache_root`` that this
    process creates and removes, whatever happens to the child.

    Args:
        config: Configuration of the run.
        prepared: Prepared data of the run.
        free_bytes: Bytes of free memory.
        subsampling: n if ``prepared`` has every n-th training example only.
        load_pretrained: Whether to load pretrained weights; false if training resumes from a checkpoint.

    Raises:
        TrainingError: If memory does not suffice for the model or a single example, or the child was killed.
        UserError: If the model cannot be built, or pretrained weights cannot be loaded.
    """
    context = multiprocessing.get_context("spawn")
    connection, child_connection = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="check-", dir=config.cache_root) as folder:
        task = partial(
            _dry_run, config, prepared, free_bytes=free_bytes, load_pretrained=load_pretrained, folder=Path(folder)
        )
        process = context.Process(target=_child_main, args=(child_connection,), daemon=True)
        # multiprocessing's own tracker process; started within `deferred_signals`, it would unblock SIGINT there.
        resource_tracker.ensure_running()
        try:
            # Only for the start: the task goes through the pipe, as unpickling it imports torch, which takes seconds.
            with deferred_signals():
                process.start()
            child_connection.close()
            result = _receive_result(connection, task, process, free_bytes=free_bytes)
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, DryRun)
    if result.speed is None:
        return result
    return replace(result, speed=replace(result.speed, steps_per_epoch=result.speed.steps_per_epoch * subsampling))


def _receive_result(
    connection: Connection, task: Callable[[], DryRun], process: BaseProcess, *, free_bytes: int
) -> object:
    """Sends the task to the child and returns its result, or the error that it caught.

    Raises:
        TrainingError: If the child was killed.
    """
    try:
        connection.send(task)
        return connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise TrainingError(
                "the system killed the dry run, as it does when memory runs out "
                f"({free_bytes / 2**30:.1f} GiB were free); lower trainer.batch_tokens or use a smaller model"
            ) from None
        raise RuntimeError(f"the dry run ended with code {process.exitcode}") from None


def _child_main(connection: Connection) -> None:
    """Main function of the child: sends the result of the task that it receives, or an error with a message."""
    task: Callable[[], DryRun] = connection.recv()
    try:
        connection.send(task())
    except (UserError, TrainingError) as error:
        connection.send(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0]
        connection.send(TrainingError(f"out of memory: the model or its optimizer do not fit ({reason})"))


def _dry_run(config: Config, prepared: PreparedData, *, free_bytes: int, load_pretrained: bool, folder: Path) -> DryRun:
    runtime = start_runtime(config.trainer)
    # Without compiling, which takes minutes: the measurements are those of the model that is not compiled. And without
    # resampling, which would only take time.
    trainer, tokenizer = replace(config.trainer, compile=False), replace(config.tokenizer, sampling_alpha=0.0)
    config = replace(config, trainer=trainer, tokenizer=tokenizer)
    train_step, loader = build_training(
        config, prepared, runtime=runtime, world=World(), load_pretrained=load_pretrained
    )
    model = train_step.model
    parameters = sum(p.numel() for p in model.parameters())
    largest_batches = loader.largest_batches(0)
    adam_state_bytes = 2 * 4 * parameters  # two moments in float32, which the first update allocates
    safe_bytes = int(_SAFE_SHARE * free_bytes) - adam_state_bytes
    speed = None
    with deterministic(config.trainer.deterministic):
        needed_bytes = _estimate_peak_bytes(
            train_step, [micro.batch for micro in largest_batches], runtime, safe_bytes=safe_bytes
        )
        fits = needed_bytes <= safe_bytes
        if fits:
            train_step.warm_up_memory(largest_batches)
            speed = _speed(train_step, loader, config=config, prepared=prepared, runtime=runtime, folder=folder)
    needed_bytes = _peak_bytes(runtime) if fits else needed_bytes + adam_state_bytes
    shapes = [
        (len(micro.batch.indices), micro.batch.src.size(1), micro.batch.tgt_in.size(1)) for micro in largest_batches
    ]
    memory = MemoryEstimate(shapes, needed_bytes, free_bytes, measured=fits, splits=train_step.num_splits)
    return DryRun(parameters, memory, speed)


def _peak_bytes(runtime: Runtime) -> int:
    return int(runtime.peak_memory_mb() * 2**20)


def _estimate_peak_bytes(train_step: TrainStep, batches: Sequence[Batch], runtime: Runtime, *, safe_bytes: int) -> int:
    """Estimates the peak memory of training on these batches from parts of them: it grows with the number of examples.

    A whole batch could bring the machine down, since other processes share the CPU's memory. Larger parts are tried
    only while the estimate is at most ``safe_bytes``.
    """
    train_step.warm_up_memory([MicroBatch(_first_examples(batch, 1), weight=1.0) for batch in batches])
    base = estimate = _peak_bytes(runtime)
    for divisor, batch in product(_DIVISORS, batches):
        if estimate > safe_bytes:
            break
        part = _first_examples(batch, len(batch.indices) // divisor)
        train_step.warm_up_memory([MicroBatch(part, weight=1.0)])
        estimate = max(estimate, base + (_peak_bytes(runtime) - base) * len(batch.indices) // len(part.indices))
    return estimate


def _first_examples(batch: Batch, examples: int) -> Batch:
    """Halves a batch until it has at most so many examples; the padded lengths stay those of the whole batch."""
    while len(batch.indices) > max(examples, 1):
        batch = batch.halves()[0]
    return batch


def _speed(
    train_step: TrainStep,
    loader: BatchLoader,
    *,
    config: Config,
    prepared: PreparedData,
    runtime: Runtime,
    folder: Path,
) -> Speed:
    seconds, tokens, num_timed, steps_per_epoch = 0.0, 0, 0, 0
    with closing(loader.steps(0, 0)) as batches_of_steps:
        for index, batches in enumerate(batches_of_steps):
            start = _synchronized_time(runtime)
            train_step.run(batches, step=index, lr=0.0)
            if index >= _WARMUP_STEPS:
                seconds = seconds + _synchronized_time(runtime) - start
                tokens += batches.target_tokens
                num_timed += 1
            steps_per_epoch = -(-batches.epoch_size // config.trainer.accumulate)
            if num_timed >= _MAX_STEPS or (num_timed >= 3 and seconds >= _MAX_SECONDS):
                break
    if config.trainer.overfit_batches is None:
        mean_tokens = float(prepared.train.target_lengths.sum()) / steps_per_epoch
    else:
        mean_tokens = tokens / num_timed
    decoding_seconds = _decoding_seconds(train_step.model, config, prepared, runtime)
    loss_seconds = _FORWARD_SHARE * seconds / tokens * float(prepared.valid.target_lengths.sum())
    start = _synchronized_time(runtime)
    path = CheckpointStore(folder).save(0, train_step.tensors(), {})
    save_seconds = _synchronized_time(runtime) - start
    checkpoint_bytes = sum(file.stat().st_size for file in path.iterdir())
    return Speed(
        steps=num_timed,
        step_seconds=seconds / tokens * mean_tokens,
        target_tokens=mean_tokens,
        steps_per_epoch=steps_per_epoch,
        evaluation_seconds=decoding_seconds + loss_seconds,
        save_seconds=save_seconds,
        checkpoint_bytes=checkpoint_bytes,
    )


def _decoding_seconds(model: Seq2Seq, config: Config, prepared: PreparedData, runtime: Runtime) -> float:
    """Estimates the seconds of greedy decoding in one evaluation, from one batch.

    An untrained model never ends a sentence, so outputs are limited to the length of long references.
    """
    examples = min(config.trainer.eval_examples, len(prepared.valid))
    num_timed = min(examples, config.search.batch_size)
    if not num_timed:
        return 0.0
    longest = min(config.search.max_length, int(np.quantile(prepared.valid.target_lengths, 0.95)))
    search = replace(config.search, max_length=longest, min_length=min(config.search.min_length, longest))
    evaluator = build_evaluator(replace(config, search=search), prepared.tokenizers, runtime=runtime)
    model.eval()
    start = _synchronized_time(runtime)
    evaluator.generate([model], prepared.valid, examples=num_timed, greedy=True)
    return (_synchronized_time(runtime) - start) * examples / num_timed


def _synchronized_time(runtime: Runtime) -> float:
    """Waits for the device to finish and returns the time in seconds."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter()
