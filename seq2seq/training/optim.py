"""The optimizer, the learning rate as a pure function of the step, and the moving average of the weights."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError
from seq2seq.training.optim_config import OptimConfig, OptimizerName, Schedule

STATE_KEYS = ("step", "exp_avg", "exp_avg_sq")  # state of Adam and AdamW per parameter


def learning_rate(step: int, config: OptimConfig, *, horizon: int | None, plateau_scale: float = 1.0) -> float:
    """Returns the learning rate of update number `step`, a pure function of its arguments.

    Warm-up is linear for every schedule, from lr / warmup at step 1 to lr at the last warm-up step (Goyal et
    al. 2017, section 2.2, arXiv:1706.02677). With p = (step - warmup) / (horizon - warmup) and floor f, the rate
    after the warm-up is lr times: `inverse_sqrt` sqrt(warmup / step) (Vaswani et al. 2017, equation 3,
    arXiv:1706.03762, scaled to peak at lr; a warm-up of 0 counts as 1); `cosine` f + (1 - f)(1 + cos(pi p)) /
    2 (Loshchilov & Hutter 2017, equation 5, arXiv:1608.03983, without restarts); `linear` 1 - (1 - f) p;
    `constant` and `plateau` 1. None of them falls below f, and past the horizon `cosine` and `linear` stay
    at f.

    Args:
        step: number of the update, from 1.
        config: the `optim` section.
        horizon: see `resolve_horizon`; only `cosine` and `linear` use it.
        plateau_scale: see the function of that name; multiplies the peak.
    """
    if step <= config.warmup_steps:
        return config.lr * plateau_scale * step / config.warmup_steps
    factor = _schedule_factor(step, config, horizon) * plateau_scale
    return config.lr * max(factor, config.min_lr_ratio)


def _schedule_factor(step: int, config: OptimConfig, horizon: int | None) -> float:
    """Returns the factor on the peak learning rate at a `step` after the warm-up."""
    if config.schedule is Schedule.inverse_sqrt:
        return math.sqrt(max(config.warmup_steps, 1) / step)
    if config.schedule is Schedule.constant or config.schedule is Schedule.plateau:  # `in` would hide them from mypy
        return 1.0
    if horizon is None:
        raise ValueError(f"the {config.schedule.value} schedule needs a horizon")
    progress = min((step - config.warmup_steps) / max(horizon - config.warmup_steps, 1), 1.0)
    floor = config.min_lr_ratio
    if config.schedule is Schedule.cosine:
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule is Schedule.linear:
        return 1 - (1 - floor) * progress
    assert_never(config.schedule)


def plateau_scale(history: Sequence[float], *, mode: str, config: OptimConfig) -> float:
    """Returns the factor of the `plateau` schedule after the evaluations in `history`; 1 for other schedules.

    It starts at 1 and is multiplied by `plateau_factor` at each `plateau_patience`-th evaluation in a row
    that is no better than the best before it. This is torch's ReduceLROnPlateau with threshold 0 and patience
    one lower, because patience counts here as in trainer.patience. NaN is never an improvement.

    Args:
        history: the monitored metric (trainer.metric) of every evaluation of the run, oldest first.
        mode: `min` or `max`, whether a smaller or a larger value is better.
        config: the `optim` section.
    """
    if config.schedule is not Schedule.plateau:
        return 1.0
    sign = 1.0 if mode == "max" else -1.0
    best, num_stale, scale = -math.inf, 0, 1.0
    for value in history:
        if sign * value > best:
            best, num_stale = sign * value, 0
            continue
        num_stale += 1
        if num_stale == config.plateau_patience:
            scale, num_stale = scale * config.plateau_factor, 0
    return scale


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, *, device_type: str
) -> torch.optim.Optimizer:
    """Builds Adam or AdamW over the trainable parameters, in two groups: with and without weight decay.

    Only matrices decay. Biases and normalisation gains do not, because pulling them to zero limits what a
    layer can express, not how large it grows. Embeddings do not, because Adam's update is dense: the row of a
    token that is absent from the batch would decay without getting a gradient, so that rare tokens would fade.
    An embedding has "embed" in its name (a tied output matrix shares its parameter, hence its name).

    Args:
        named_parameters: parameters of the unwrapped model; a shared parameter once.
        config: the `optim` section.
        device_type: `cpu`, `cuda` or `mps`; the first two run the whole update in one fused kernel.
    """
    decay: list[tuple[str, nn.Parameter]] = []
    no_decay: list[tuple[str, nn.Parameter]] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (no_decay if parameter.ndim < 2 or "embed" in name else decay).append((name, parameter))
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    optimizer_class = torch.optim.AdamW if config.name is OptimizerName.adamw else torch.optim.Adam
    return optimizer_class(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=device_type in ("cpu", "cuda"),
    )


def update(optimizer: torch.optim.Optimizer, *, skip: Tensor) -> None:
    """Makes one update, unless `skip` [] bool, on the device of the parameters, is true.

    A fused optimizer reads it on the device, as it does the `found_inf` of torch.amp.GradScaler.
    """
    if optimizer.defaults["fused"]:
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        optimizer.step()
    elif not skip:
        optimizer.step()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the Adam state as tensors named `<parameter>.exp_avg` and so on, for `restore_optimizer`.

    A parameter that has not been updated yet gets the zeros that Adam starts with, so that the set of names
    depends on the model alone. The tensors are the live ones, not copies.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in _optimized_parameters(optimizer).items():
        state = optimizer.state.get(parameter) or {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
        tensors.update({f"{name}.{key}": state[key] for key in STATE_KEYS})
    return tensors


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Loads what `optimizer_tensors` returned; the next update is the one the saved optimizer would have made.

    The optimizer may keep the given tensors and modify them in place.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    optimized = _optimized_parameters(optimizer)
    shapes = {
        f"{name}.{key}": torch.Size() if key == "step" else parameter.shape
        for name, parameter in optimized.items()
        for key in STATE_KEYS
    }
    _check_shapes("the optimizer state", tensors, shapes)
    saved: dict[str, Any] = optimizer.state_dict()
    saved["state"] = {
        index: {key: tensors[f"{name}.{key}"] for key in STATE_KEYS} for index, name in enumerate(optimized)
    }
    optimizer.load_state_dict(saved)  # moves each tensor to the device of its parameter


def _optimized_parameters(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Returns the parameters by name, group by group: in the order in which ``state_dict`` numbers them."""
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def _check_shapes(what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raises a UserError that names every kind of mismatch between tensors and expected shapes."""
    mismatches = {"missing": shapes.keys() - tensors.keys(), "unknown": tensors.keys() - shapes.keys()}
    problems = [f"{kind} {_first_three(names)}" for kind, names in mismatches.items() if names]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ][:3]
    if problems:
        raise UserError(f"{what} does not fit the model: {'; '.join(problems)}")


def _first_three(names: Iterable[str]) -> str:
    """Returns the first three names in order, and how many more there are."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + rest


class ExponentialMovingAverage:
    """An exponential moving average of the parameters of a model, which often scores better than the last weights.

    Averaging the iterates is due to Polyak & Juditsky 1992 (doi:10.1137/0330046). After update n the average
    moves by 1 - min(decay, (1 + n) / (10 + n)) towards the weights: the warm-up of
    tf.train.ExponentialMovingAverage, without which the random initial weights would linger for
    1 / (1 - decay) updates.

    Attributes:
        decay: limit of the decay, from 0 to below 1.
        updates: n, the number of calls of `update`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the current weights of the model; call it once per step, even a skipped one."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = dict(model.named_parameters())
        current = [weights[name].detach() for name in self._average]
        torch._foreach_lerp_(list(self._average.values()), current, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the context, the model holds the average; afterwards, exactly the weights it had."""
        original = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        _copy_weights(model, self._average)
        try:
            yield
        finally:
            _copy_weights(model, original)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the average by parameter name and the scalar `updates`, for `restore`; live tensors, not copies."""
        return {**self._average, "updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what `tensors` returned.

        Raises:
            UserError: a name is missing or unknown, or a shape differs.
        """
        shapes = {name: average.shape for name, average in self._average.items()}
        _check_shapes("the moving average", tensors, {**shapes, "updates": torch.Size()})
        for name, average in self._average.items():
            average.copy_(tensors[name])
        self.updates = int(tensors["updates"])


@torch.no_grad()
def _copy_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
