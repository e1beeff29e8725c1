"""The `optim` section of the configuration."""

import math
from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError


class OptimizerName(str, Enum):
    """The optimizers; they differ in what weight decay means."""

    adam = "adam"
    adamw = "adamw"


class Schedule(str, Enum):
    """The schedule of the learning rate after the warm-up."""

    inverse_sqrt = "inverse_sqrt"
    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    plateau = "plateau"


@dataclass
class OptimConfig:
    """The `optim` section: one optimizer, one schedule, clipping and weight averaging.

    Attributes:
        name: `adam` (Kingma & Ba 2015, arXiv:1412.6980; weight decay is an L2 term of the gradient) or
            `adamw` (Loshchilov & Hutter 2019, arXiv:1711.05101; weight decay acts on the weights).
        lr: peak learning rate, reached at the end of the warm-up.
        betas: decay rates of the two moments. The second is 0.98 as in Vaswani et al. 2017 (section 5.3,
            arXiv:1706.03762): it averages over about 50 steps, where 0.999 would still include the gradients of
            the warm-up.
        eps: 1e-9 as in Vaswani et al. Rare embedding rows have tiny second moments, which a larger value would
            dominate.
        weight_decay: for matrices only, see `build_optimizer`.
        schedule: learning rate after the warm-up, see `learning_rate`.
        warmup_steps: updates of linear warm-up; 0 starts at the peak.
        horizon_steps: update at which `cosine` and `linear` reach their floor; null is trainer.max_steps.
        min_lr_ratio: floor of every schedule after the warm-up, as a fraction of `lr`, 0 to 1.
        clip_norm: largest global norm of the gradient (Pascanu et al. 2013, algorithm 1, arXiv:1211.5063);
            0 is off.
        plateau_factor: factor by which `plateau` multiplies the learning rate, above 0 and below 1.
        plateau_patience: evaluations in a row without improvement after which it does so.
        ema_decay: decay of the moving average of the weights, below 1; 0 is off.
    """

    name: OptimizerName = OptimizerName.adamw
    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-9
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.inverse_sqrt
    warmup_steps: int = 0
    horizon_steps: int | None = None
    min_lr_ratio: float = 0.0
    clip_norm: float = 1.0
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges; NaN fails each check."""
        _require(0 < self.lr < math.inf, "lr", self.lr, "a finite number above 0")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "betas",
            self.betas,
            "two numbers, each at least 0 and below 1",
        )
        _require(0 < self.eps < math.inf, "eps", self.eps, "a finite number above 0")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "a finite number >= 0")
        _require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "a number of updates, 0 for none")
        _require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", self.min_lr_ratio, "a fraction from 0 to 1")
        _require(0 <= self.clip_norm < math.inf, "clip_norm", self.clip_norm, "a finite number >= 0, 0 for off")
        _require(0 < self.plateau_factor < 1, "plateau_factor", self.plateau_factor, "above 0 and below 1")
        _require(self.plateau_patience >= 1, "plateau_patience", self.plateau_patience, "at least 1")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 (off) and below 1")
        if self.horizon_steps is not None:
            _require(
                self.horizon_steps >= max(self.warmup_steps, 1),
                "horizon_steps",
                self.horizon_steps,
                f"at least 1 and at least optim.warmup_steps={self.warmup_steps}, or null",
            )


def _require(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise UserError(f"optim.{key}={value}: give {rule}")


def resolve_horizon(config: OptimConfig, *, max_steps: int | None) -> int | None:
    """Returns the update at which the schedule ends: `optim.horizon_steps`, or `trainer.max_steps` of the run.

    Raises:
        UserError: `cosine` or `linear` has no horizon, or the warm-up is longer than the run.
    """
    if max_steps is not None and config.warmup_steps > max_steps:
        raise UserError(
            f"optim.warmup_steps={config.warmup_steps} is above trainer.max_steps={max_steps}: "
            "the run would end before its learning rate has peaked; lower it or run longer"
        )
    horizon = config.horizon_steps if config.horizon_steps is not None else max_steps
    if horizon is None and config.schedule in (Schedule.cosine, Schedule.linear):
        raise UserError(
            f"optim.schedule={config.schedule.value} needs a last step to decay to: "
            "set optim.horizon_steps or trainer.max_steps"
        )
    return horizon
