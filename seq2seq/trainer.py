"""The training loop. The optimizer step is its only clock."""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seq2seq import optim
from seq2seq.checkpoint import Checkpoint, CheckpointStore
from seq2seq.checkpoint import average as average_checkpoints
from seq2seq.distributed import World
from seq2seq.errors import Interrupted, TrainingError
from seq2seq.models.base import Seq2Seq
from seq2seq.models.objective import Objective
from seq2seq.models.output import LossSums
from seq2seq.optim import OptimConfig
from seq2seq.progress import Progress
from seq2seq.runtime import Precision, Runtime, seed_step
from seq2seq.signals import RESUMABLE, StopRequest, signal_name, stop_requests
from seq2seq.stream import BatchStream, StepBatches
from seq2seq.tracking import NullTracker
from seq2seq.train_state import TrainState, finished
from seq2seq.trainer_config import Averaging, TrainerConfig
from seq2seq.validation import Validator

LOGGER = logging.getLogger("seq2seq")


@dataclass(frozen=True)
class Surroundings:
    """What a trainer works with besides the model and the data.

    Attributes:
        runtime: Device and precision.
        world: The processes of the run.
        tracker: Where figures go; the null tracker on ranks that do not write.
        checkpoints: Where checkpoints go.
        fingerprints: sha256 of data and tokenizer; a checkpoint belongs to these.
        seed: The run's seed.
    """

    runtime: Runtime
    world: World
    tracker: NullTracker
    checkpoints: CheckpointStore
    fingerprints: Mapping[str, str]
    seed: int


class Trainer:
    """Trains one model.

    Args:
        model: On its device, with its first weights.
        stream: The batches of each step.
        validator: Evaluates.
        config: The trainer's section.
        optim_config: The optimizer's section.
        surroundings: See there.
    """

    def __init__(
        self,
        model: Seq2Seq,
        stream: BatchStream,
        *,
        validator: Validator,
        config: TrainerConfig,
        optim_config: OptimConfig,
        surroundings: Surroundings,
    ):
        self.model = model
        self.state = TrainState()
        self._stream = stream
        self._validator = validator
        self._config = config
        self._optim = optim_config
        self._to = surroundings
        self._horizon = optim.resolve_horizon(optim_config, max_steps=config.max_steps)
        runtime = surroundings.runtime
        self._optimizer = optim.build_optimizer(model.named_parameters(), optim_config, device_type=runtime.device.type)
        self._scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision is Precision.fp16)
        self._ema = optim.ExponentialMovingAverage(model, optim_config.ema_decay) if optim_config.ema_decay else None
        model.checkpoint_activations = config.checkpoint_activations
        self._objective = self._wrap(Objective(model))
        # Since the last log: the sums of the loss, then gradient norm and updates that the fp16 scaler skipped.
        self._window = torch.zeros(len(LossSums._fields) + 2, device=runtime.device)
        self._window_seconds = 0.0
        self._window_padding = 0.0
        self._window_steps = 0

    def _wrap(self, objective: nn.Module) -> nn.Module:
        if self._config.compile:
            objective.compile(dynamic=True)
        if self._to.world.size > 1:
            device = self._to.runtime.device
            objective = DistributedDataParallel(
                objective,
                device_ids=[device.index] if device.type == "cuda" else None,
                broadcast_buffers=False,  # constant tables, which may have grown on one rank only
            )
        return objective

    # -- the loop ----------------------------------------------------------------------------------------------

    def fit(self) -> str:
        """Trains until the run is complete.

        Returns:
            Why it ended.

        Raises:
            Interrupted: If it was asked to stop before; a checkpoint is saved.
            TrainingError: If the loss is no longer a finite number.
        """
        config, state = self._config, self.state
        clock = _Clock(before=state.seconds)
        self.model.train()
        steps = self._stream.steps(state.epoch, state.position)
        progress = Progress(state.step, config.max_steps, enabled=self._to.world.is_main)
        with stop_requests() as request, progress, closing(steps):
            if self._ends() and state.step not in dict(state.history):  # a limit was lowered
                self._evaluate()
                self._save()
            while (reason := finished(state, config)) is None:
                self._train_step(next(steps))
                progress.update(state.step)
                stop = self._agree(request, clock)
                if self._due(config.log_every) or self._ends() or stop:
                    self._log(progress)
                if self._due(config.eval_every) or self._ends():
                    self._evaluate()
                    stop = self._agree(request, clock)
                if self._due(config.save_every) or self._best_is_now() or self._ends() or stop:
                    self._save()
                if stop and not self._ends():
                    raise stop
        return reason

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0

    def _ends(self) -> bool:
        return finished(self.state, self._config) is not None

    def _agree(self, request: StopRequest, clock: "_Clock") -> Interrupted | None:
        """Gives all ranks one clock and one answer to whether to stop, so that none leaves the loop alone.

        The only message that ranks exchange at each step besides gradients: three numbers.
        """
        here, limit = clock.here(), self._config.stop_after_minutes
        too_long = limit is not None and here >= 60 * limit
        seconds, code, late = self._to.world.max([clock.before + here, request.exit_code or 0, too_long])
        self.state.seconds = seconds
        if not code and not late:
            return None
        why = signal_name(int(code)) if code else f"trainer.stop_after_minutes={limit}"
        return Interrupted(
            f"stopped by {why} after step {self.state.step}; the same command goes on", int(code) or RESUMABLE
        )

    # -- one step ----------------------------------------------------------------------------------------------

    def _train_step(self, batches: StepBatches) -> None:
        """One optimizer step: the gradient of the summed loss over the step's global count of target tokens."""
        began = time.perf_counter()
        state, runtime, world = self.state, self._to.runtime, self._to.world
        seed_step(self._to.seed, state.step, world.rank)
        scale = world.size / batches.target_tokens  # DistributedDataParallel divides by the number of ranks
        covering = self._config.coverage_loss_weight if state.step >= self._config.coverage_loss_start else 0.0
        for number, micro in enumerate(batches.micro_batches):
            batch = micro.batch.to(runtime.device, non_blocking=runtime.pinned)
            last = number == len(batches.micro_batches) - 1
            with self._no_sync() if not last else nullcontext():
                with runtime.autocast():
                    sums = self._objective(
                        batch.src, batch.tgt_in, batch.rows, batch.labels, self._config.label_smoothing
                    )
                loss = sums.loss + covering * sums.repetition if sums.repetition.requires_grad else sums.loss
                self._scaler.scale(loss * (scale * micro.weight)).backward()
            self._window[:-2] += torch.stack(list(sums)).detach() * micro.weight
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._optim.clip_norm or math.inf)
        optim.set_learning_rate(self._optimizer, self._learning_rate())
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._ema is not None:
            self._ema.update(self.model)
        self._advance(batches)
        self._window[-2:] += self._norm_and_skipped(norm.detach())
        self._window_padding += batches.padding_share
        self._window_steps += 1
        self._window_seconds += time.perf_counter() - began

    def _norm_and_skipped(self, norm: Tensor) -> Tensor:
        """The gradient's norm and 0; 0 and 1 where it overflowed in fp16, for then the scaler skipped the update."""
        skipped = ~norm.isfinite() if self._scaler.is_enabled() else torch.zeros_like(norm, dtype=torch.bool)
        return torch.stack([norm.masked_fill(skipped, 0.0), skipped.to(norm.dtype)])

    def _no_sync(self) -> Any:
        wrapped = self._objective
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def _learning_rate(self) -> float:
        scale = 1.0
        if self._optim.schedule is optim.Schedule.plateau:
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

    def _log(self, progress: Progress) -> None:
        """Logs the figures since the last log; the only place where the loop waits for the device."""
        runtime, world = self._to.runtime, self._to.world
        steps, began = self._window_steps, time.perf_counter()
        sums = world.sum(self._window.detach().to("cpu", torch.float64))
        self._window_seconds += time.perf_counter() - began  # work that was still under way on the device
        loss, nll, correct, tokens, repetition, norm, skipped = sums.tolist()
        self._require_finite(loss + norm)
        if skipped == steps * world.size and self._scaler.get_scale() < 1.0:
            raise TrainingError(
                f"fp16 gradients overflow at every step (by step {self.state.step}, loss scale "
                f"{self._scaler.get_scale():g}); use trainer.precision=bf16 or fp32, or a smaller optim.lr"
            )
        self.state.step_seconds += self._window_seconds
        rate = tokens / max(self._window_seconds, 1e-9)
        values = {
            "train/loss": loss / tokens,
            "train/ppl": math.exp(min(nll / tokens, 700.0)),
            "train/accuracy": 100 * correct / tokens,
            "train/lr": self._optimizer.param_groups[0]["lr"],
            "train/grad_norm": norm / max(steps * world.size - skipped, 1),
            "train/epoch": self.state.epochs,
            "perf/target_tokens_per_sec": rate,
            "perf/padding_share": self._window_padding / steps,
            "system/peak_memory_mb": runtime.peak_memory_mb(),
        }
        if repetition:
            values["train/coverage_loss"] = repetition / tokens
        if self._scaler.is_enabled():
            values["train/loss_scale"] = self._scaler.get_scale()
            values["train/skipped_updates"] = skipped / world.size
        self._to.tracker.log(self.state.step, values)
        LOGGER.info(
            "step %d  epoch %.2f  loss %.4f  ppl %.2f  lr %.2e  grad %.2f  %s target tokens/s%s",
            self.state.step, self.state.epochs, values["train/loss"], values["train/ppl"], values["train/lr"],
            values["train/grad_norm"], f"{rate:,.0f}", progress.remaining(self.state.step),
        )  # fmt: skip
        self._window.zero_()
        self._window_seconds = self._window_padding = 0.0
        self._window_steps = 0

    def _require_finite(self, figure: float) -> None:
        if not math.isfinite(figure):
            raise TrainingError(
                f"the loss or the gradient is not a finite number (by step {self.state.step}); the last checkpoint is "
                "good. Try a smaller optim.lr, more optim.warmup_steps, or trainer.precision=fp32"
            )

    def _evaluate(self) -> None:
        self._require_finite(self._window[-2].item())  # the norm is the same on all ranks
        with self._weights_for_use():
            values = self._validator.run(self.model, self.state.step)
        values = self._to.world.broadcast(values)
        self.state.history.append((self.state.step, values[self._config.metric]))
        self._to.tracker.log(self.state.step, values)
        shown = "  ".join(f"{name.removeprefix('valid/')} {value:.4g}" for name, value in values.items())
        LOGGER.info("valid %d  %s%s", self.state.step, shown, "  (best)" if self._best_is_now() else "")

    def _best_is_now(self) -> bool:
        best = self.state.best(self._config.mode)
        return best is not None and best[0] == self.state.step

    def _weights_for_use(self) -> Any:
        return self._ema.applied(self.model) if self._ema is not None else nullcontext()

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._require_finite(self._window[-2].item())
        self._to.tracker.flush()
        if self._to.world.is_main:
            store, state = self._to.checkpoints, self.state
            state.scaler = self._scaler.state_dict()
            tensors: dict[str, dict[str, Tensor]] = {
                "optimizer": optim.optimizer_tensors(self._optimizer, self.model.named_parameters())
            }
            if self._ema is not None:
                tensors["training"] = {name: t.clone() for name, t in self.model.state_dict().items()}
                tensors["ema"] = self._ema.tensors()
            with self._weights_for_use():
                tensors["model"] = dict(self.model.state_dict())
                path = store.save(state.step, tensors, state.to_json(), belongs_to=self._to.fingerprints)
            store.link("last", path)
            if self._best_is_now():
                store.link("best", path)
            store.prune(keep=self._kept(store.steps()))
        self._to.world.barrier()

    def _kept(self, steps: list[int]) -> set[int]:
        config = self._config
        last = config.average_checkpoints if config.average is Averaging.last else config.keep_last
        best = config.average_checkpoints if config.average is Averaging.best else config.keep_best
        there = set(steps)
        ranked = [step for step in self.state.ranked(config.mode) if step in there]
        return {*steps[-max(last, config.keep_last) :], *ranked[: max(best, config.keep_best)]}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint of this run; later ones, which were passed over as damaged, are deleted."""
        training = checkpoint.tensors.get("training", checkpoint.tensors["model"])
        self.model.load_state_dict(training)
        optim.restore_optimizer(self._optimizer, self.model.named_parameters(), checkpoint.tensors["optimizer"])
        if self._ema is not None:
            self._ema.restore(checkpoint.tensors["ema"])
        self.state = TrainState.from_json(checkpoint.state)
        if self._scaler.is_enabled() and self.state.scaler:
            self._scaler.load_state_dict(self.state.scaler)
        if self._to.world.is_main:
            store = self._to.checkpoints
            steps = [step for step in store.steps() if step <= checkpoint.step]
            store.link("last", checkpoint.path)  # a kill between a save and its links leaves these behind
            best = self.state.best(self._config.mode)
            if best is not None and best[0] in steps:
                store.link("best", best[0])
            store.prune(keep=steps)

    def average(self) -> None:
        """Averages checkpoints as configured; the average becomes ``best`` if it scores better."""
        config, store, state = self._config, self._to.checkpoints, self.state
        if config.average is Averaging.none:
            return
        there = store.steps()
        ranked = there if config.average is Averaging.last else state.ranked(config.mode)[::-1]
        chosen = [step for step in ranked if step in set(there)][-config.average_checkpoints :]
        if not chosen:
            return  # best of none: no evaluation gave a finite value
        weights = average_checkpoints([store.resolve(str(step)) for step in chosen])
        self.model.load_state_dict(weights)
        value = self._to.world.broadcast(self._validator.run(self.model, state.step))[config.metric]
        best = state.best(config.mode)
        better = best is None or (value < best[1] if config.mode == "min" else value > best[1])
        LOGGER.info(
            "average of steps %s  %s %.4g  %s",
            ", ".join(map(str, chosen)), config.metric, value, "(best)" if better else "(not better)",
        )  # fmt: skip
        if self._to.world.is_main:
            path = store.save(
                state.step, {"model": weights}, {"averaged": chosen, "value": value},
                belongs_to=self._to.fingerprints, name="average",
            )  # fmt: skip
            if better:
                store.link("best", path)
        self._to.world.barrier()


class _Clock:
    """Seconds in the loop: those before this process, and those in it."""

    def __init__(self, before: float):
        self.before = before
        self._began = time.perf_counter()

    def here(self) -> float:
        return time.perf_counter() - self._began


def initial_weights(path: Path) -> dict[str, Tensor]:
    """Verified weights of a run's best checkpoint, or of a checkpoint folder, to start another run from."""
    checkpoints = path / "checkpoints"
    store = CheckpointStore(checkpoints if checkpoints.is_dir() else path.parent)
    chosen = store.resolve("best") if checkpoints.is_dir() else path
    return store.load(chosen, files=["model"]).tensors["model"]
