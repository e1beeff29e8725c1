"""The training loop. What is due depends on the optimizer step alone."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from seq2seq.data.loader import BatchLoader, StepBatches
from seq2seq.errors import Interrupted, TrainingError
from seq2seq.runs.checkpoint import Checkpoint
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.tracking import Tracker
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.system.signals import EXIT_RESUMABLE, Aborted, StopRequest, signal_name, stop_requests
from seq2seq.training import optim
from seq2seq.training.background import Background
from seq2seq.training.checkpointing import CheckpointManager
from seq2seq.training.config import LOSS_METRICS, TrainerConfig
from seq2seq.training.optim_config import OptimConfig, resolve_horizon
from seq2seq.training.profiling import StepProfiler
from seq2seq.training.progress import Progress
from seq2seq.training.state import TrainState, stop_reason
from seq2seq.training.step import TrainStep
from seq2seq.training.validation import Validator

logger = logging.getLogger("seq2seq")


@dataclass(frozen=True)
class TrainingContext:
    """What a trainer needs besides the model and the data.

    Attributes:
        runtime: Device and precision.
        world: The processes of the run.
        tracker: Receives metrics; one without a folder on ranks that do not write.
        checkpoints: The checkpoints of the run.
        profiler: Records the configured steps.
        fingerprints: What the weights depend on, stored in each checkpoint: sha256 of data and tokenizer, and
            values of the configuration.
        on_save: Called in the writing thread when a checkpoint is on the disk.
    """

    runtime: Runtime
    world: World
    tracker: Tracker
    checkpoints: CheckpointStore
    profiler: StepProfiler
    fingerprints: Mapping[str, str]
    on_save: Callable[[], None]


class Trainer:
    """Trains one model.

    Args:
        train_step: The optimizer step, which holds the model on its device with its initial weights.
        loader: Yields the batches of each step.
        validator: Evaluates the model.
        config: The trainer's section.
        optim_config: The optimizer's section.
        context: Device, ranks, tracker and checkpoints.
    """

    def __init__(
        self,
        train_step: TrainStep,
        loader: BatchLoader,
        *,
        validator: Validator,
        config: TrainerConfig,
        optim_config: OptimConfig,
        context: TrainingContext,
    ):
        self.model = train_step.model
        self.state = TrainState(machine=_machine(context), eval_examples=config.eval_examples)
        self._train_step = train_step
        self._loader = loader
        self._validator = validator
        self._config = config
        self._optim_config = optim_config
        self._context = context
        self._horizon = resolve_horizon(optim_config, max_steps=config.max_steps)
        self._background = Background()
        self._checkpoints = CheckpointManager(
            context.checkpoints, config, fingerprints=context.fingerprints, tracker=context.tracker,
            background=self._background, on_save=context.on_save,
        )  # fmt: skip

    # -- the loop ----------------------------------------------------------------------------------------------

    def fit(self, *, background_task: Callable[[], None] | None = None) -> str:
        """Trains until the run is complete.

        Args:
            background_task: Runs in a thread during the first steps. Nothing is saved before it is done, and an error
                of it ends training.

        Returns:
            Why the run is complete.

        Raises:
            Interrupted: If the process was asked to stop before; a checkpoint is saved.
            TrainingError: If training cannot continue.
        """
        config, state, profiler = self._config, self.state, self._context.profiler
        start = time.perf_counter()
        seconds_before = state.seconds
        self.model.train()
        if background_task is not None:
            self._background.submit(background_task)
        try:
            self._train_step.warm_up_memory(self._loader.largest_batches(state.epoch))
        except Exception:
            self._background.wait()  # its error takes precedence: it may be the cause
            raise
        progress = Progress(state.step, config.max_steps, enabled=self._context.world.is_main)
        steps = self._loader.steps(state.epoch, state.position)
        with stop_requests() as request, closing(progress), self._background, closing(steps), closing(profiler):
            sync_stop = partial(self._sync_stop, request, start=start, seconds_before=seconds_before)
            reason = stop_reason(state, config)
            if state.step and (self._is_due(config.eval_every) or reason) and not state.evaluated:
                self._evaluate(request)  # a signal aborted it, or a limit was lowered
                reason = stop_reason(state, config)
                self._save(scheduled=self._save_is_scheduled(reason))
            while reason is None:
                batches = self._next_batches(steps, request)
                if batches is not None:
                    with profiler.step(state.step + 1):
                        self._train_step.run(batches, step=state.step, lr=self._learning_rate())
                    self._advance(batches)
                    progress.update(state.step)
                self._background.raise_error()
                state.seconds, stop = sync_stop()
                reason = stop_reason(state, config)
                if batches is not None and (self._is_due(config.log_every) or reason):
                    self._log(batches, progress)
                if (self._is_due(config.eval_every) or reason) and not stop:
                    self._evaluate(request)
                    state.seconds, stop = sync_stop()
                    reason = stop_reason(state, config)
                scheduled = self._save_is_scheduled(reason)
                if scheduled or stop:
                    self._save(scheduled=scheduled)
                if stop:
                    raise stop
        self._checkpoints.require_saved()
        self._context.world.barrier()
        return reason

    def _next_batches(self, steps: Iterator[StepBatches], request: StopRequest) -> StepBatches | None:
        """Returns the next batches; None if a signal came while waiting for them (long at the start of an epoch)."""
        try:
            with request.abort_on_signal(self._context.world.size == 1):
                return next(steps)
        except Aborted:
            return None

    def _is_due(self, interval: int) -> bool:
        return self.state.step % interval == 0

    def _save_is_scheduled(self, reason: str | None) -> bool:
        """Whether an uninterrupted run would save here; `reason` is why the run is complete, if it is."""
        return self._is_due(self._config.save_every) or self.state.is_best(self._config.mode) or reason is not None

    def _sync_stop(
        self, request: StopRequest, *, start: float, seconds_before: float
    ) -> tuple[float, Interrupted | None]:
        """Synchronizes the clock and the decision to stop, so that no rank leaves the loop alone.

        Apart from gradients, the only communication of each step: an all-reduce of three numbers.

        Args:
            request: What signals have asked for.
            start: When the loop began, by ``time.perf_counter``.
            seconds_before: Seconds that earlier processes spent in the loop.

        Returns:
            The seconds of the run, and the exception to raise if it has to stop.
        """
        elapsed, limit = time.perf_counter() - start, self._config.stop_after_minutes
        timed_out = limit is not None and elapsed >= 60 * limit
        seconds, code, any_timed_out = self._context.world.max(
            [seconds_before + elapsed, request.exit_code or 0, timed_out]
        )
        if not code and not any_timed_out:
            return seconds, None
        why = signal_name(int(code)) if code else f"trainer.stop_after_minutes={limit}"
        message = f"stopped by {why} after step {self.state.step}; run the same command again to resume"
        return seconds, Interrupted(message, int(code) or EXIT_RESUMABLE)

    def _learning_rate(self) -> float:
        history = [value for _, value in self.state.history]
        scale = optim.plateau_scale(history, mode=self._config.mode, config=self._optim_config)
        return optim.learning_rate(self.state.step + 1, self._optim_config, horizon=self._horizon, plateau_scale=scale)

    def _advance(self, batches: StepBatches) -> None:
        state = self.state
        state.step += 1
        state.target_tokens += batches.target_tokens
        state.epochs = batches.epoch + batches.position / batches.epoch_size
        if batches.position == batches.epoch_size:
            state.epoch, state.position = batches.epoch + 1, 0
        else:
            state.epoch, state.position = batches.epoch, batches.position

    # -- logging, evaluating, saving ---------------------------------------------------------------------------

    def _log(self, batches: StepBatches, progress: Progress) -> None:
        """Logs the metrics since the last log; between evaluations and saves only this synchronizes with the device."""
        running, state = self._train_step.metrics, self.state
        start = time.perf_counter()
        metrics = running.compute(self._context.world)
        running.seconds += time.perf_counter() - start  # work still queued on the device
        state.step_seconds += running.seconds
        state.skipped += metrics.skipped
        tokens, scale = metrics.tokens or math.nan, self._train_step.loss_scale
        values = {
            "train/loss": metrics.loss / tokens,
            "train/ppl": math.exp(min(metrics.nll / tokens, 700.0)),
            "train/accuracy": 100 * metrics.correct / tokens,
            "train/lr": self._train_step.lr,
            "train/grad_norm": metrics.grad_norm,
            "train/epoch": state.epochs,
            "perf/target_tokens_per_sec": metrics.tokens / max(running.seconds, 1e-9),
            "perf/flops_per_sec": metrics.flops / max(running.seconds, 1e-9),
            "perf/padding_share": running.padding / running.steps,
            "system/peak_memory_mb": self._context.runtime.peak_memory_mb(),
        }
        if metrics.coverage_loss:
            values["train/coverage_loss"] = metrics.coverage_loss / tokens
        if scale is not None:
            values["train/loss_scale"] = scale
        if metrics.skipped or scale is not None:
            values["train/skipped_updates"] = metrics.skipped
        if self._train_step.num_splits:
            values["perf/split_batches"] = self._train_step.num_splits
        self._context.tracker.log(state.step, values)
        logger.info(
            "step %d  epoch %.2f  loss %.4f  ppl %.2f  lr %.2e  grad %.2f  %s target tokens/s  %s%s",
            state.step, state.epochs, values["train/loss"], values["train/ppl"], values["train/lr"],
            values["train/grad_norm"], f"{values['perf/target_tokens_per_sec']:,.0f}",
            _flop_rate(values["perf/flops_per_sec"]), progress.remaining(state.step),
        )  # fmt: skip
        self._check_skipped_updates(batches)
        if self._context.world.is_main:
            self._warn(metrics.skipped, values)
        running.reset()

    def _warn(self, skipped: int, values: Mapping[str, float]) -> None:
        if skipped and self._train_step.loss_scale is None:  # in fp16, skips are how the first loss scales are found
            logger.warning(
                "%d of these %d updates were skipped: loss or gradient not finite",
                skipped,
                self._train_step.metrics.steps,
            )
        self.state.alarms.check_metrics(self.state.step, values)

    def _check_skipped_updates(self, batches: StepBatches) -> None:
        """Raises a TrainingError after too many skipped updates in a row; saves the batch to ``checkpoints/failed``."""
        skipped, scale = self._train_step.metrics.consecutive_skips(), self._train_step.loss_scale
        if skipped < self._config.max_skipped_steps or (scale is not None and scale >= 1.0):
            return
        state = self.state
        by_rank = self._context.world.gather([vars(micro.batch) for micro in batches.micro_batches])
        tensors = {
            f"rank{rank}.micro{index}.{name}": tensor
            for rank, micro_batches in enumerate(by_rank)
            for index, named_tensors in enumerate(micro_batches)
            for name, tensor in named_tensors.items()
        }
        outcome = "could not be saved"
        if self._context.world.is_main:
            outcome = self._checkpoints.save_failed_batch(state.step, dict(self.model.state_dict()), tensors)
        precision = self._context.runtime.precision.value
        advice = "a smaller optim.lr, more optim.warmup_steps, or trainer.precision=fp32"
        if scale is not None:
            advice = f"trainer.precision=bf16 or fp32 (the loss scale has fallen to {scale:g}), or a smaller optim.lr"
        raise TrainingError(
            f"the loss or the gradient is not a finite number: {skipped} updates in a row were skipped, in "
            f"{precision}, up to step {state.step} (trainer.max_skipped_steps={self._config.max_skipped_steps}). "
            f"The weights and the last checkpoint are good; the batch {outcome}. Try {advice}"
        )

    def _evaluate(self, request: StopRequest) -> None:
        """Evaluates the model. In a single process a signal aborts it, and the resumed run starts with it."""
        self._train_step.require_finite_weights()
        single_process = self._context.world.size == 1
        try:
            with self._train_step.eval_weights(), request.abort_on_signal(single_process):
                result = self._validator.run(self.model)
        except Aborted:
            logger.info(
                "the evaluation at step %d was aborted; run the same command again to resume with it", self.state.step
            )
            return
        values = self._context.world.broadcast(result.values)
        # Without a finite loss no other value means anything.
        monitored = values.get(self._config.metric, math.nan) if math.isfinite(values["valid/loss"]) else math.nan
        self.state.history.append((self.state.step, monitored))
        self._validator.log(result, self.state.step)
        summary = "  ".join(f"{name.removeprefix('valid/')} {value:.4g}" for name, value in values.items())
        logger.info(
            "valid %d  %s%s", self.state.step, summary, "  (best)" if self.state.is_best(self._config.mode) else ""
        )
        if not math.isfinite(monitored):
            what = self._config.metric if math.isfinite(values["valid/loss"]) else "the loss on the validation set"
            logger.warning("%s is not a finite number: this evaluation counts as worse than any other", what)
        if self._context.world.is_main:
            self.state.alarms.check_outputs(self.state.step, result.outputs, result.references)

    def _save(self, *, scheduled: bool) -> None:
        """Copies the contents of a checkpoint, and writes them in the background.

        Args:
            scheduled: Whether an uninterrupted run would save here too.
        """
        self._train_step.require_finite_weights()
        state = self.state
        state.interruption_steps = [step for step in state.interruption_steps if step != state.step]
        if not scheduled:
            state.interruption_steps.append(state.step)
        state.running_metrics = self._context.world.gather(self._train_step.metrics.to_json())
        state.scaler = self._train_step.scaler_state()
        if self._context.world.is_main:
            self._checkpoints.save(self._train_step.tensors(), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resumes from a checkpoint of this run; later ones, which were skipped as damaged, are deleted."""
        machine = self.state.machine
        self.state = TrainState.from_json(checkpoint.state)
        self._train_step.restore(checkpoint, self.state.scaler)
        changed = [f"{key} {old} -> {machine[key]}" for key, old in self.state.machine.items() if old != machine[key]]
        if changed:
            logger.warning("resuming with %s: results will not be bit-identical", "; ".join(changed))
        self.state.machine = machine
        self._restart_history()
        world, by_rank = self._context.world, self.state.running_metrics
        if len(by_rank) == world.size:
            self._train_step.metrics.restore(by_rank[world.rank])
        if world.is_main:
            self._checkpoints.resume(checkpoint, self.state)

    def _restart_history(self) -> None:
        """Forgets the evaluations of the run if the next ones cannot be compared with them."""
        before, now = self.state.eval_examples, self._config.eval_examples
        if before not in (0, now) and self._config.metric.removeprefix("valid/") not in LOSS_METRICS:
            logger.warning(
                "trainer.eval_examples=%d, so far %d: values of %s on other examples cannot be compared, the best "
                "checkpoint is chosen from now on", now, before, self._config.metric,
            )  # fmt: skip
            self.state.history.clear()
        self.state.eval_examples = now

    def average(self) -> None:
        """Averages checkpoints as configured; the average is linked as ``best`` if it scores better."""
        config, state, world = self._config, self.state, self._context.world
        steps = self._checkpoints.steps_to_average(state)
        if not steps:
            return
        weights = self._checkpoints.average(steps)
        self.model.load_state_dict(weights)
        value = world.broadcast(self._validator.run(self.model).values).get(config.metric, math.nan)
        best = state.best(config.mode)
        is_best = best is None or (value < best[1] if config.mode == "min" else value > best[1])
        logger.info(
            "average of steps %s  %s %.4g  %s",
            ", ".join(map(str, steps)), config.metric, value, "(best)" if is_best else "(not better)",
        )  # fmt: skip
        if world.is_main:
            contents = {"averaged": steps, "value": value}
            self._checkpoints.save_average(weights, contents, step=state.step, is_best=is_best)
        world.barrier()


def _machine(context: TrainingContext) -> dict[str, Any]:
    """What else affects the weights bit for bit, besides data, configuration and seed."""
    return {
        "device": context.runtime.device.type,
        "precision": context.runtime.precision.value,
        "ranks": context.world.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _flop_rate(rate: float) -> str:
    """Formats FLOP/s."""
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.1f} GFLOP/s"
