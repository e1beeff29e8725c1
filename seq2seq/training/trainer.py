"""The training loop. The optimizer step is its only clock."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from seq2seq.data.loader import BatchLoader, StepBatches
from seq2seq.errors import Interrupted, TrainingError
from seq2seq.runs.checkpoint import Checkpoint, CheckpointStore
from seq2seq.runs.tracking import NullTracker
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.system.signals import RESUMABLE, Abandoned, StopRequest, signal_name, stop_requests
from seq2seq.training import optim
from seq2seq.training.alarms import Alarms
from seq2seq.training.background import Background
from seq2seq.training.checkpointing import Checkpointing
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig, Schedule, resolve_horizon
from seq2seq.training.progress import Progress
from seq2seq.training.state import TrainState, finished
from seq2seq.training.step import TrainStep
from seq2seq.training.validation import Validator

LOGGER = logging.getLogger("seq2seq")


@dataclass(frozen=True)
class TrainingContext:
    """What a trainer works with besides the model and the data.

    Attributes:
        runtime: Device and precision.
        world: The processes of the run.
        tracker: Where figures go; the null tracker on ranks that do not write.
        checkpoints: Where checkpoints go.
        fingerprints: sha256 of data, tokenizer and configuration; a checkpoint belongs to these.
    """

    runtime: Runtime
    world: World
    tracker: NullTracker
    checkpoints: CheckpointStore
    fingerprints: Mapping[str, str]


class Trainer:
    """Trains one model.

    Args:
        step: One optimizer step, with the model on its device and its first weights.
        loader: The batches of each step.
        validator: Evaluates.
        config: The trainer's section.
        optim_config: The optimizer's section.
        context: See there.
    """

    def __init__(
        self,
        step: TrainStep,
        loader: BatchLoader,
        *,
        validator: Validator,
        config: TrainerConfig,
        optim_config: OptimConfig,
        context: TrainingContext,
    ):
        self.model = step.model
        self.state = TrainState(machine=_machine(context))
        self._step = step
        self._loader = loader
        self._validator = validator
        self._config = config
        self._optim = optim_config
        self._context = context
        self._horizon = resolve_horizon(optim_config, max_steps=config.max_steps)
        self._alarms = Alarms(self.state.alarms)
        self._background = Background()
        self._checkpoints = Checkpointing(
            context.checkpoints, config, fingerprints=context.fingerprints, tracker=context.tracker,
            background=self._background,
        )  # fmt: skip

    # -- the loop ----------------------------------------------------------------------------------------------

    def fit(self, *, beside: Callable[[], None] | None = None) -> str:
        """Trains until the run is complete.

        Args:
            beside: Runs beside the first steps; nothing is saved before its end, and its error ends training.

        Returns:
            Why it ended.

        Raises:
            Interrupted: If it was asked to stop before; a checkpoint is saved.
            TrainingError: If it cannot go on.
        """
        config, state = self._config, self.state
        clock = _Clock(before=state.seconds)
        self.model.train()
        if beside is not None:
            self._background.submit(beside)
        try:
            self._step.warm_up_memory(self._loader.largest_batches(state.epoch))
        except Exception:
            self._background.wait()  # if that fails, too, it tells why
            raise
        progress = Progress(state.step, config.max_steps, enabled=self._context.world.is_main)
        steps = self._loader.steps(state.epoch, state.position)
        with stop_requests() as request, progress, self._background, closing(steps):
            reason = finished(state, config)
            if state.step and (self._every(config.eval_every) or reason) and not state.evaluated:
                self._evaluate(request)  # it was abandoned, or a limit was lowered
                reason = finished(state, config)
                self._save(scheduled=self._save_is_scheduled(reason))
            while reason is None:
                batches = self._next(steps, request)
                if batches is not None:
                    self._step.run(batches, step=state.step, lr=self._learning_rate())
                    self._advance(batches)
                    progress.update(state.step)
                self._background.raise_error()
                state.seconds, stop = self._agree(request, clock)
                reason = finished(state, config)
                if batches is not None and (self._every(config.log_every) or reason):
                    self._log(batches, progress)
                if (self._every(config.eval_every) or reason) and not stop:
                    self._evaluate(request)
                    state.seconds, stop = self._agree(request, clock)
                    reason = finished(state, config)
                scheduled = self._save_is_scheduled(reason)
                if scheduled or stop:
                    self._save(scheduled=scheduled)
                if stop:
                    raise stop
        self._checkpoints.require_saved()
        self._context.world.barrier()
        return reason

    def _next(self, steps: Iterator[StepBatches], request: StopRequest) -> StepBatches | None:
        """The next batches; None if a signal came while they were waited for, which may be long at an epoch's start."""
        try:
            with request.abandoning(self._context.world.size == 1):
                return next(steps)
        except Abandoned:
            return None

    def _every(self, steps: int) -> bool:
        return self.state.step % steps == 0

    def _save_is_scheduled(self, reason: str | None) -> bool:
        """Whether a run that nobody stops saves here; `reason` is why it ends here, if it does."""
        return self._every(self._config.save_every) or self.state.best_is_now(self._config.mode) or reason is not None

    def _agree(self, request: StopRequest, clock: "_Clock") -> tuple[float, Interrupted | None]:
        """Gives all ranks one clock and one answer to whether to stop, so that none leaves the loop alone.

        The only message that ranks exchange at each step besides gradients: three numbers.

        Returns:
            The run's seconds, and what to raise if it is to stop.
        """
        here, limit = clock.here(), self._config.stop_after_minutes
        too_long = limit is not None and here >= 60 * limit
        seconds, code, late = self._context.world.max([clock.before + here, request.exit_code or 0, too_long])
        if not code and not late:
            return seconds, None
        why = signal_name(int(code)) if code else f"trainer.stop_after_minutes={limit}"
        message = f"stopped by {why} after step {self.state.step}; run the same command again to resume"
        return seconds, Interrupted(message, int(code) or RESUMABLE)

    def _learning_rate(self) -> float:
        scale = 1.0
        if self._optim.schedule is Schedule.plateau:
            scale = optim.plateau_scale(
                [value for _, value in self.state.history], mode=self._config.mode, config=self._optim
            )
        return optim.learning_rate(self.state.step + 1, self._optim, horizon=self._horizon, plateau_scale=scale)

    def _advance(self, batches: StepBatches) -> None:
        state = self.state
        state.step += 1
        state.target_tokens += batches.target_tokens
        state.epochs = batches.epoch + batches.position / batches.epoch_size
        if batches.position == batches.epoch_size:
            state.epoch, state.position = batches.epoch + 1, 0
        else:
            state.epoch, state.position = batches.epoch, batches.position

    # -- what is due -------------------------------------------------------------------------------------------

    def _log(self, batches: StepBatches, progress: Progress) -> None:
        """Logs the figures since the last log; the only place where the loop waits for the device."""
        window, state = self._step.window, self.state
        began = time.perf_counter()
        figures = window.read(self._context.world)
        window.seconds += time.perf_counter() - began  # work that was still under way on the device
        state.step_seconds += window.seconds
        state.skipped += figures.skipped
        tokens, scale = figures.tokens or math.nan, self._step.loss_scale
        values = {
            "train/loss": figures.loss / tokens,
            "train/ppl": math.exp(min(figures.nll / tokens, 700.0)),
            "train/accuracy": 100 * figures.correct / tokens,
            "train/lr": self._step.lr,
            "train/grad_norm": figures.grad_norm,
            "train/epoch": state.epochs,
            "perf/target_tokens_per_sec": figures.tokens / max(window.seconds, 1e-9),
            "perf/padding_share": window.padding / window.steps,
            "system/peak_memory_mb": self._context.runtime.peak_memory_mb(),
        }
        if figures.repetition:
            values["train/coverage_loss"] = figures.repetition / tokens
        if scale is not None:
            values["train/loss_scale"] = scale
        if figures.skipped or scale is not None:
            values["train/skipped_updates"] = figures.skipped
        if self._step.splits:
            values["perf/split_batches"] = self._step.splits
        self._context.tracker.log(state.step, values)
        LOGGER.info(
            "step %d  epoch %.2f  loss %.4f  ppl %.2f  lr %.2e  grad %.2f  %s target tokens/s%s",
            state.step, state.epochs, values["train/loss"], values["train/ppl"], values["train/lr"],
            values["train/grad_norm"], f"{values['perf/target_tokens_per_sec']:,.0f}", progress.remaining(state.step),
        )  # fmt: skip
        self._require_progress(batches)
        if self._context.world.is_main:
            self._warn(figures.skipped, values)
        window.clear()

    def _warn(self, skipped: int, values: Mapping[str, float]) -> None:
        if skipped and self._step.loss_scale is None:  # in fp16 the first scales are tried out in this way
            LOGGER.warning(
                "%d of these %d updates were skipped: no finite loss and gradient", skipped, self._step.window.steps
            )
        self._alarms.training(self.state.step, values)

    def _require_progress(self, batches: StepBatches) -> None:
        """Ends the run after too many skipped updates in a row, with the last batch in ``checkpoints/failed``."""
        skipped, scale = self._step.window.skipped_in_a_row(), self._step.loss_scale
        if skipped < self._config.max_skipped_steps or (scale is not None and scale >= 1.0):
            return
        state = self.state
        tensors = {
            f"rank{rank}.micro{number}.{name}": tensor
            for rank, micro_batches in enumerate(self._context.world.gather(_batch_tensors(batches)))
            for number, named in enumerate(micro_batches)
            for name, tensor in named.items()
        }
        kept = "could not be saved"
        if self._context.world.is_main:
            kept = self._checkpoints.save_failed(state.step, dict(self.model.state_dict()), tensors)
        precision = self._context.runtime.precision.value
        advice = "a smaller optim.lr, more optim.warmup_steps, or trainer.precision=fp32"
        if scale is not None:
            advice = f"trainer.precision=bf16 or fp32 (the loss scale has fallen to {scale:g}), or a smaller optim.lr"
        raise TrainingError(
            f"the loss or the gradient is not a finite number: {skipped} updates in a row were skipped, in "
            f"{precision}, up to step {state.step} (trainer.max_skipped_steps={self._config.max_skipped_steps}). "
            f"The weights and the last checkpoint are good; the batch {kept}. Try {advice}"
        )

    def _evaluate(self, request: StopRequest) -> None:
        """Evaluates. A signal abandons it and the resumed run evaluates first; several ranks see it through."""
        self._step.require_finite_weights()
        alone = self._context.world.size == 1
        try:
            with self._step.weights_for_use(), request.abandoning(alone):
                found = self._validator.run(self.model)
        except Abandoned:
            LOGGER.info(
                "the evaluation at step %d is abandoned; run the same command again to begin with it", self.state.step
            )
            return
        values = self._context.world.broadcast(found.values)
        watched = values.get(self._config.metric, math.nan)  # absent if the loss is not a finite number
        self.state.history.append((self.state.step, watched))
        self._validator.show(found, self.state.step)
        shown = "  ".join(f"{name.removeprefix('valid/')} {value:.4g}" for name, value in values.items())
        LOGGER.info(
            "valid %d  %s%s", self.state.step, shown, "  (best)" if self.state.best_is_now(self._config.mode) else ""
        )
        if not math.isfinite(watched):
            LOGGER.warning("%s is not a finite number: it counts as worse than any other value", self._config.metric)
        if self._context.world.is_main:
            self._alarms.outputs(self.state.step, found.outputs, found.references)

    def _save(self, *, scheduled: bool) -> None:
        """Copies what a checkpoint holds, and writes it in the background.

        Args:
            scheduled: Whether a run that is not stopped would save here.
        """
        self._step.require_finite_weights()
        state = self.state
        state.unscheduled = [step for step in state.unscheduled if step != state.step]
        if not scheduled:
            state.unscheduled.append(state.step)
        state.windows = self._context.world.gather(self._step.window.to_json())
        state.scaler = self._step.scaler_state()
        if self._context.world.is_main:
            self._checkpoints.save(self._step.tensors(), state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint of this run; later ones, which were passed over as damaged, are deleted."""
        here = self.state.machine
        self.state = TrainState.from_json(checkpoint.state)
        self._step.restore(checkpoint, self.state.scaler)
        self._alarms = Alarms(self.state.alarms)
        changed = [f"{key} {old} -> {here[key]}" for key, old in self.state.machine.items() if old != here[key]]
        if changed:
            LOGGER.warning("resuming with %s: results will not be bit-identical", "; ".join(changed))
        self.state.machine = here
        world, windows = self._context.world, self.state.windows
        if len(windows) == world.size:
            self._step.window.restore(windows[world.rank])
        if world.is_main:
            self._checkpoints.resume(checkpoint, self.state)

    def average(self) -> None:
        """Averages checkpoints as configured; the average becomes ``best`` if it scores better."""
        config, state, world = self._config, self.state, self._context.world
        average = self._checkpoints.average(state)
        if average is None:
            return
        self.model.load_state_dict(average.weights)
        value = world.broadcast(self._validator.run(self.model).values).get(config.metric, math.nan)
        best = state.best(config.mode)
        better = best is None or (value < best[1] if config.mode == "min" else value > best[1])
        LOGGER.info(
            "average of steps %s  %s %.4g  %s",
            ", ".join(map(str, average.steps)), config.metric, value, "(best)" if better else "(not better)",
        )  # fmt: skip
        if world.is_main:
            self._checkpoints.save_average(average, value, step=state.step, is_best=better)
        world.barrier()


class _Clock:
    """Seconds in the loop: those before this process, and those in it."""

    def __init__(self, before: float):
        self.before = before
        self._began = time.perf_counter()

    def here(self) -> float:
        return time.perf_counter() - self._began


def _machine(context: TrainingContext) -> dict[str, Any]:
    """What decides the last bits of the weights besides data, configuration and seed."""
    return {
        "device": context.runtime.device.type,
        "precision": context.runtime.precision.value,
        "ranks": context.world.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _batch_tensors(batches: StepBatches) -> list[dict[str, Tensor]]:
    """The tensors of each micro-batch by their names."""
    return [
        {field.name: getattr(micro.batch, field.name) for field in fields(micro.batch)}
        for micro in batches.micro_batches
    ]
