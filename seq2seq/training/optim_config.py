"""The `optim` section of the configuration."""

import math
from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.training.config import Ranges, check_ranges


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


_DECAYING = (Schedule.cosine, Schedule.linear)  # to a last step: `resolve_horizon`

# See `check_ranges`.
_RANGES: Ranges = (
    (("lr", "eps"), lambda value: 0 < value < math.inf, "a finite number above 0"),
    (
        ("betas",),
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        "two numbers, each at least 0 and below 1",
    ),
    (("weight_decay",), lambda value: 0 <= value < math.inf, "a finite number >= 0"),
    (("warmup_steps",), lambda value: value >= 0, "a number of updates, 0 for none"),
    (("min_lr_ratio",), lambda value: 0 <= value <= 1, "a fraction from 0 to 1"),
    (("clip_norm",), lambda value: 0 <= value < math.inf, "a finite number >= 0, 0 for off"),
    (("plateau_factor",), lambda value: 0 < value < 1, "above 0 and below 1"),
    (("plateau_patience",), lambda value: value >= 1, "at least 1"),
    (("ema_decay",), lambda value: 0 <= value < 1, "at least 0 (off) and below 1"),
)

_IF_DECAYING = {"used_if": ("optim.schedule", tuple(schedule.value for schedule in _DECAYING))}
_IF_PLATEAU = {"used_if": ("optim.schedule", ("plateau",))}


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
        horizon_steps: update at which a schedule that decays to a last step is at its floor; null is trainer.max_steps.
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
    horizon_steps: int | None = field(default=None, metadata=_IF_DECAYING)
    min_lr_ratio: float = 0.0
    clip_norm: float = 1.0
    plateau_factor: float = field(default=0.5, metadata=_IF_PLATEAU)
    plateau_patience: int = field(default=3, metadata=_IF_PLATEAU)
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_ranges("optim", self, _RANGES)
        if self.horizon_steps is not None and self.horizon_steps < max(self.warmup_steps, 1):
            raise UserError(
                f"optim.horizon_steps={self.horizon_steps}: must be at least 1 and at least "
                f"optim.warmup_steps={self.warmup_steps}, or null"
            )


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
    if horizon is None and config.schedule in _DECAYING:
        raise UserError(
            f"optim.schedule={config.schedule.value} needs a last step to decay to: "
            "set optim.horizon_steps or trainer.max_steps"
        )
    return horizon
