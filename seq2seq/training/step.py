"""One optimizer step: gradients of its micro-batches, clipping, update. Whether to skip it is decided on the device."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.errors import TrainingError, UserError
from seq2seq.models.base import Seq2Seq
from seq2seq.models.objective import Objective
from seq2seq.models.output import LossSums
from seq2seq.runs.checkpoint import Checkpoint, snapshot
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime, free_memory, is_out_of_memory, seed_step
from seq2seq.system.distributed import World
from seq2seq.training import optim
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig
from seq2seq.training.running_metrics import RunningMetrics

logger = logging.getLogger("seq2seq")


class TrainStep:
    """Updates a model, and holds the state that changes with the updates.

    A non-finite loss makes the gradients of all ranks non-finite, so the gradient norm alone tells whether to skip the
    update (in fp16, the gradient scaler's own check). No synchronization with the device is needed.

    Args:
        model: The model on its device, with its initial weights.
        config: The trainer's section.
        optim_config: The optimizer's section.
        runtime: Device and precision.
        world: The processes of the run.
        seed: Seed of the run.

    Attributes:
        model: The model, with the weights of the last update.
        metrics: Running metrics since the last log.
        num_splits: Number of micro-batches of this process that did not fit into memory and were halved.
    """

    def __init__(
        self,
        model: Seq2Seq,
        config: TrainerConfig,
        optim_config: OptimConfig,
        *,
        runtime: Runtime,
        world: World,
        seed: int,
    ):
        self.model = model
        self.metrics = RunningMetrics(runtime.device)
        self.num_splits = 0
        self._config = config
        self._optim_config = optim_config
        self._runtime, self._world, self._seed = runtime, world, seed
        self._optimizer = optim.build_optimizer(model.named_parameters(), optim_config, device_type=runtime.device.type)
        self._scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision is Precision.fp16)
        self._ema = optim.ExponentialMovingAverage(model, optim_config.ema_decay) if optim_config.ema_decay else None
        model.checkpoint_activations = config.checkpoint_activations
        self._multiplications = model.multiplications()
        self._objective = self._wrap(Objective(model))

    def _wrap(self, objective: nn.Module) -> nn.Module:
        if self._config.compile:
            objective.compile(dynamic=True)
        if self._world.size > 1:
            device = self._runtime.device
            objective = DistributedDataParallel(
                objective,
                device_ids=[device.index] if device.type == "cuda" else None,
                broadcast_buffers=False,  # constant tables of positions, which may have grown on one rank only
            )
        return objective

    @property
    def lr(self) -> float:
        """The learning rate of the last update."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def loss_scale(self) -> float | None:
        """The loss scale in fp16; None in other precisions."""
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    def run(self, batches: StepBatches, *, step: int, lr: float) -> None:
        """Makes one update, or skips it. The loss is a sum divided by the number of target tokens on all ranks.

        Args:
            batches: The micro-batches of this rank.
            step: Number of updates before this one, including skipped ones.
            lr: Learning rate of this update.
        """
        start = time.perf_counter()
        coverage_weight = self._config.coverage_loss_weight if step >= self._config.coverage_loss_start else 0.0
        scale = self._world.size / batches.target_tokens  # DistributedDataParallel divides by the number of ranks
        losses = self._compute_gradients(batches.micro_batches, step=step, scale=scale, coverage_weight=coverage_weight)
        self._scaler.unscale_(self._optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._optim_config.clip_norm or math.inf).detach()
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        skip = ~grad_norm.isfinite()
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer)  # checks every gradient itself
            self._scaler.update()
        else:
            optim.update(self._optimizer, skip=skip)
        self._optimizer.zero_grad()
        if self._ema is not None:
            self._ema.update(self.model)
        self.metrics.update(losses, grad_norm, skip)
        self.metrics.padding += batches.padding_share
        self.metrics.flops += sum(self._flops(micro) for micro in batches.micro_batches)
        self.metrics.seconds += time.perf_counter() - start

    def warm_up_memory(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Computes the gradients of micro-batches and drops them, so that running out of memory shows at the start.

        Raises:
            TrainingError: If a single example does not fit.
        """
        for micro in micro_batches:
            with self._no_sync():
                self._compute_gradients([micro], step=-1, scale=1.0, coverage_weight=self._config.coverage_loss_weight)
            self._optimizer.zero_grad()

    def _flops(self, micro: MicroBatch) -> float:
        batch, tokens = micro.batch, micro.batch.tokens
        shape = (*batch.src.shape, batch.tgt_in.size(1))
        return micro.weight * self._multiplications.training_flops(*shape, target_tokens=tokens)

    def _compute_gradients(
        self, micro_batches: Sequence[MicroBatch], *, step: int, scale: float, coverage_weight: float
    ) -> Tensor:
        """Accumulates gradients and returns the sums [5] of the losses.

        When memory runs out, a single process halves the micro-batch and restarts the step: the gradient is the same
        sum. Several ranks cannot, because each waits for the gradients of the others.
        """
        pending = list(micro_batches)
        while True:
            seed_step(self._seed, step, self._world.rank)
            losses = torch.zeros(len(LossSums._fields), device=self._runtime.device)
            for index, micro in enumerate(pending):
                try:
                    losses += self._forward_backward(
                        micro, scale=scale, coverage_weight=coverage_weight, is_last=index == len(pending) - 1
                    )
                except (RuntimeError, MemoryError) as error:
                    if self._world.size > 1 or not is_out_of_memory(error):
                        raise
                    pending[index : index + 1] = self._split(micro)
                    break
            else:
                return losses
            self._optimizer.zero_grad()
            free_memory(self._runtime.device)

    def _forward_backward(self, micro: MicroBatch, *, scale: float, coverage_weight: float, is_last: bool) -> Tensor:
        """Runs forward and backward of one micro-batch; returns the sums [5] of its losses."""
        batch = micro.batch.to(self._runtime.device, non_blocking=self._runtime.pinned)
        with nullcontext() if is_last else self._no_sync():
            with self._runtime.autocast():
                sums = self._objective(batch.src, batch.tgt_in, batch.rows, batch.labels, self._config.label_smoothing)
            # Only a model with coverage gives a coverage loss that requires a gradient.
            loss = sums.loss + coverage_weight * sums.coverage_loss if sums.coverage_loss.requires_grad else sums.loss
            one_or_nan = 1 + 0 * loss.detach()  # NaN if the loss is not finite, so that all gradients become NaN
            self._scaler.scale(loss * one_or_nan * (scale * micro.weight)).backward()
        return torch.stack(list(sums)).detach() * micro.weight

    def _split(self, micro: MicroBatch) -> list[MicroBatch]:
        """Halves a micro-batch that did not fit into memory; warns the first time."""
        num_examples, batch = len(micro.batch.indices), micro.batch
        if num_examples == 1:
            raise TrainingError(
                f"out of memory with a single example of {batch.src.size(1)} source and {batch.tgt_in.size(1)} target "
                "tokens: lower data.max_source_length and data.max_target_length, use a smaller model, or set "
                "trainer.checkpoint_activations=true"
            )
        self.num_splits += 1
        if self.num_splits == 1:
            logger.warning(
                "out of memory: a batch of %d examples (at most %d source and %d target tokens) is computed in halves, "
                "as is every later one that does not fit (perf/split_batches). It would be faster to lower "
                "trainer.batch_tokens=%d and to raise trainer.accumulate by the same factor",
                num_examples, batch.src.size(1), batch.tgt_in.size(1), self._config.batch_tokens,
            )  # fmt: skip
        return [MicroBatch(half, micro.weight) for half in batch.halves()]

    def _no_sync(self) -> Any:
        wrapped = self._objective
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    # -- saving and restoring ----------------------------------------------------------------------------------

    def eval_weights(self) -> Any:
        """Within the context, the model holds the weights to evaluate and save: the moving average if there is one."""
        return self._ema.applied(self.model) if self._ema is not None else nullcontext()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns copies of all tensors of a checkpoint, by file and name.

        With a moving average, "model" holds the averaged weights and "training" those that training continues with.
        """
        live: dict[str, dict[str, Tensor]] = {"optimizer": optim.optimizer_tensors(self._optimizer)}
        if self._ema is not None:
            live |= {"training": dict(self.model.state_dict()), "ema": self._ema.tensors()}
        copies = snapshot(live)
        with self.eval_weights():
            return copies | snapshot({"model": dict(self.model.state_dict())})

    def scaler_state(self) -> dict[str, Any]:
        """Returns the state of the fp16 gradient scaler; empty in other precisions."""
        return self._scaler.state_dict()

    def restore(self, checkpoint: Checkpoint, scaler: Mapping[str, Any]) -> None:
        """Loads what ``tensors`` and ``scaler_state`` returned.

        Raises:
            UserError: If the checkpoint is of another model.
        """
        tensors = checkpoint.tensors
        needed = {"model", "optimizer"} | ({"training", "ema"} if self._ema is not None else set())
        if missing := sorted(needed - tensors.keys()):
            raise UserError(f"{checkpoint.path} lacks {', '.join(missing)}: training cannot resume from it")
        try:
            self.model.load_state_dict(tensors.get("training", tensors["model"]))
        except RuntimeError as error:
            raise UserError(f"{checkpoint.path} does not fit the model: {' '.join(str(error).split())}") from error
        optim.restore_optimizer(self._optimizer, tensors["optimizer"])
        if self._ema is not None:
            self._ema.restore(tensors["ema"])
        if self._scaler.is_enabled() and scaler:
            self._scaler.load_state_dict(dict(scaler))

    def require_finite_weights(self) -> None:
        """Raises a TrainingError if a weight is not a finite number; synchronizes with the device."""
        max_norms = torch.stack(torch._foreach_norm([p.detach() for p in self.model.parameters()], math.inf))
        if not bool(max_norms.isfinite().all()):
            raise TrainingError("a weight is no longer a finite number; the last checkpoint is good. Lower optim.lr")
