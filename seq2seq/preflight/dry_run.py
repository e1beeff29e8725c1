"""A few steps of a run, to know its memory and its speed: the real model, optimizer, precision and batches."""

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
from seq2seq.data.prepare import Prepared
from seq2seq.errors import TrainingError, UserError
from seq2seq.models.base import Seq2Seq
from seq2seq.pipeline.build import build_evaluator, build_training
from seq2seq.runs.checkpoint import CheckpointStore
from seq2seq.system.device import (
    Runtime,
    build_runtime,
    deterministic,
    is_out_of_memory,
    keep_freed_memory,
    set_threads,
)
from seq2seq.system.distributed import World
from seq2seq.system.signals import held_back
from seq2seq.training.step import TrainStep

_WARM_UP = 2  # steps that are slower than those to come
_STEPS, _SECONDS = 20, 6.0  # measured: so many steps, or as many as fit into so many seconds, but three
_PARTS = 8, 4, 2  # one of the largest batches is tried by these parts of it first
_SAFE = 0.8  # share of the free memory up to which it is then tried whole
_FORWARD_SHARE = 1 / 3  # of a step's time: a backward pass takes two forward ones (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True)
class Memory:
    """What the batches that need most of it need.

    Attributes:
        batches: their examples, source and target tokens, padding counted.
        needed: bytes; of the whole process on a CPU, of tensors on a GPU.
        room: bytes that were free.
        measured: false where `needed` is worked out from a part of the batch, lest the whole takes all there is.
        splits: how often a batch did not fit and was computed in halves.
    """

    batches: list[tuple[int, int, int]]
    needed: int
    room: int
    measured: bool
    splits: int


@dataclass(frozen=True)
class Speed:
    """How fast a run goes in one process.

    Attributes:
        steps: how many were measured.
        step_seconds: of a step of average size.
        target_tokens: of such a step, end of sentence counted.
        steps_per_epoch: steps of a pass over the data.
        evaluation_seconds: about; of the loss of the validation set and the greedy decoding of `trainer.eval_examples`.
        save_seconds: of a checkpoint.
        checkpoint_bytes: on disk.
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
    """What was measured.

    Attributes:
        parameters: of the model.
        memory: its need.
        speed: None where memory might not suffice.
    """

    parameters: int
    memory: Memory
    speed: Speed | None


def dry_run(config: Config, prepared: Prepared, *, room: int, subsampled: int = 1, starts: bool = True) -> DryRun:
    """Measures a run in a process of its own.

    Its peak of memory is then that of training and nothing else, and should the kernel kill it for its memory, that is
    an answer too. It writes one checkpoint, into a temporary folder below ``cache_root``. The folder is the caller's:
    nothing is left behind, whatever becomes of the process.

    Args:
        config: Of the run.
        prepared: Its data.
        room: Bytes of memory that are free.
        subsampled: How many training examples one of `prepared` stands for.
        starts: Whether the model gets its first weights; false where training goes on from a checkpoint.

    Raises:
        TrainingError: Memory does not suffice for a single example.
        UserError: The model cannot be built, or not get its first weights.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="check-", dir=config.cache_root) as folder:
        work = partial(_dry_run, config, prepared, room=room, starts=starts, folder=Path(folder))
        process = context.Process(target=_work, args=(there,), daemon=True)
        resource_tracker.ensure_running()  # it is started with any first process, and unblocks signals then
        try:
            with held_back():  # for a moment: the work, which the process reads once it has imported torch, comes after
                process.start()
            there.close()
            answer = _answer(here, work, process, room=room)
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, DryRun)
    if answer.speed is None:
        return answer
    return replace(answer, speed=replace(answer.speed, steps_per_epoch=answer.speed.steps_per_epoch * subsampled))


def _answer(connection: Connection, work: Callable[[], DryRun], process: BaseProcess, *, room: int) -> object:
    """What the process says to the work; a TrainingError if it was killed before."""
    try:
        connection.send(work)
        return connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise TrainingError(
                "the system killed the trial steps, as it does when memory runs out "
                f"({room / 2**30:.1f} GiB were free); lower trainer.batch_tokens or take a smaller model"
            ) from None
        raise RuntimeError(f"the trial steps ended with code {process.exitcode}") from None


def _work(connection: Connection) -> None:
    """The body of the process: answers with what was measured, or the error that has a message for the user."""
    work: Callable[[], DryRun] = connection.recv()
    try:
        connection.send(work())
    except (UserError, TrainingError) as error:
        connection.send(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0]
        connection.send(TrainingError(f"out of memory: the model or its optimizer do not fit ({reason})"))


def _dry_run(config: Config, prepared: Prepared, *, room: int, starts: bool, folder: Path) -> DryRun:
    set_threads(config.trainer.threads)
    keep_freed_memory()
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    config = replace(config, trainer=replace(config.trainer, compile=False))  # minutes of it would tell little
    step, stream = build_training(
        config, prepared, runtime=runtime, world=World(), starts=starts, store_of_epoch=lambda epoch: prepared.train
    )
    model = step.model
    parameters = sum(p.numel() for p in model.parameters())
    largest_batches = stream.largest_batches(0)
    moments = 2 * 4 * parameters  # Adam's, which the first update takes
    safe = int(_SAFE * room) - moments
    speed = None
    with deterministic(config.trainer.deterministic):
        needed = _need(step, [micro.batch for micro in largest_batches], runtime, safe=safe)
        fits = needed <= safe
        if fits:
            step.warm_up_memory(largest_batches)
            speed = _speed(step, stream, config=config, prepared=prepared, runtime=runtime, folder=folder)
    needed = _peak(runtime) if fits else needed + moments
    shapes = [
        (len(micro.batch.indices), micro.batch.src.size(1), micro.batch.tgt_in.size(1)) for micro in largest_batches
    ]
    return DryRun(parameters, Memory(shapes, needed, room, measured=fits, splits=step.splits), speed)


def _peak(runtime: Runtime) -> int:
    return int(runtime.peak_memory_mb() * 2**20)


def _need(step: TrainStep, batches: Sequence[Batch], runtime: Runtime, *, safe: int) -> int:
    """About the bytes of the peak within these batches, from parts of them: it grows with the number of examples.

    A batch that is tried whole could take the machine down with it: the CPU's memory is everybody's. Larger parts are
    tried as long as the estimate is no more than `safe`.
    """
    step.warm_up_memory([MicroBatch(_part(batch, 1), 1.0) for batch in batches])
    base = needed = _peak(runtime)
    for share, batch in product(_PARTS, batches):
        if needed > safe:
            break
        part = _part(batch, len(batch.indices) // share)
        step.warm_up_memory([MicroBatch(part, 1.0)])
        needed = max(needed, base + (_peak(runtime) - base) * len(batch.indices) // len(part.indices))
    return needed


def _part(batch: Batch, examples: int) -> Batch:
    """About so many of the first examples, by halving; they are as wide as the whole batch."""
    while len(batch.indices) > max(examples, 1):
        batch = batch.halves()[0]
    return batch


def _speed(
    step: TrainStep, stream: BatchLoader, *, config: Config, prepared: Prepared, runtime: Runtime, folder: Path
) -> Speed:
    seconds, tokens, count, size = 0.0, 0, 0, 0
    with closing(stream.steps(0, 0)) as batches_of_steps:
        for number, batches in enumerate(batches_of_steps):
            began = _now(runtime)
            step.run(batches, step=number, lr=0.0)
            if number >= _WARM_UP:
                seconds, tokens, count = seconds + _now(runtime) - began, tokens + batches.target_tokens, count + 1
            size = -(-batches.epoch_size // config.trainer.accumulate)
            if count >= _STEPS or (count >= 3 and seconds >= _SECONDS):
                break
    mean = float(prepared.train.target_lengths.sum()) / size
    decoding = _decoding_seconds(step.model, config, prepared, runtime)
    losses = _FORWARD_SHARE * seconds / tokens * float(prepared.valid.target_lengths.sum())
    began = _now(runtime)
    path = CheckpointStore(folder).save(0, step.tensors(), {})
    saving = _now(runtime) - began
    bytes_on_disk = sum(file.stat().st_size for file in path.iterdir())
    return Speed(count, seconds / tokens * mean, mean, size, decoding + losses, saving, bytes_on_disk)


def _decoding_seconds(model: Seq2Seq, config: Config, prepared: Prepared, runtime: Runtime) -> float:
    """Of an evaluation's greedy search, by one batch of it.

    A model that knows nothing never ends a sentence; it is stopped at the length of long references.
    """
    examples = min(config.trainer.eval_examples, len(prepared.valid))
    tried = min(examples, config.search.batch_size)
    if not tried:
        return 0.0
    longest = min(config.search.max_length, int(np.quantile(prepared.valid.target_lengths, 0.95)))
    search = replace(config.search, max_length=longest, min_length=min(config.search.min_length, longest))
    evaluator = build_evaluator(replace(config, search=search), prepared.tokenizers, runtime=runtime)
    model.eval()
    began = _now(runtime)
    evaluator.generate([model], prepared.valid, examples=tried, greedy=True)
    return (_now(runtime) - began) * examples / tried


def _now(runtime: Runtime) -> float:
    """Seconds, once the device has done what it was given."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter()
