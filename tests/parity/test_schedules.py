"""Learning-rate schedules against torch's own schedulers, step by step."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from seq2seq.training.optim import learning_rate, plateau_scale
from seq2seq.training.optim_config import OptimConfig, Schedule

LR = 0.7
WARMUP = 5
HORIZON = 20


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)


def torch_rates(scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def own_rates(config: OptimConfig, steps: int) -> list[float]:
    return [learning_rate(step, config, horizon=HORIZON) for step in range(1, steps + 1)]


def warmed(optimizer: torch.optim.Optimizer, after: lr_scheduler.LRScheduler) -> lr_scheduler.LRScheduler:
    # LinearLR counts from 0 and reaches its end factor after total_iters: our step 1 is its first rate
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / WARMUP, total_iters=WARMUP - 1)
    return lr_scheduler.SequentialLR(optimizer, [warmup, after], milestones=[WARMUP - 1])


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_is_cosine_annealing_after_linear_warmup(floor: float) -> None:
    optimizer = sgd()
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=HORIZON - WARMUP, eta_min=floor * LR)
    config = OptimConfig(lr=LR, schedule=Schedule.cosine, warmup_steps=WARMUP, min_lr_ratio=floor)
    expected = torch_rates(warmed(optimizer, cosine), HORIZON)
    assert own_rates(config, HORIZON) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_linear_is_torch_linear_and_stays_at_its_floor(floor: float) -> None:
    optimizer = sgd()
    linear = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=floor, total_iters=HORIZON - WARMUP)
    config = OptimConfig(lr=LR, schedule=Schedule.linear, warmup_steps=WARMUP, min_lr_ratio=floor)
    expected = torch_rates(warmed(optimizer, linear), HORIZON + 10)
    assert own_rates(config, HORIZON + 10) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_inverse_sqrt_is_the_transformer_paper_formula() -> None:
    # Vaswani et al. 2017, equation 3, with the peak written out: d_model^-0.5 * warmup^-0.5
    d_model, warmup = 512, 4000
    config = OptimConfig(lr=(d_model * warmup) ** -0.5, warmup_steps=warmup)
    for step in (1, 17, 3999, 4000, 4001, 16000, 100000):
        paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert learning_rate(step, config, horizon=None) == pytest.approx(paper, rel=1e-12)


def test_constant_is_torch_linear_warmup() -> None:
    optimizer = sgd()
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / WARMUP, total_iters=WARMUP - 1)
    config = OptimConfig(lr=LR, schedule=Schedule.constant, warmup_steps=WARMUP)
    assert own_rates(config, 12) == pytest.approx(torch_rates(warmup, 12), rel=1e-9)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_plateau_is_reduce_on_plateau_with_patience_one_lower(mode: str, patience: int) -> None:
    generator = torch.Generator().manual_seed(patience)
    history = torch.randint(0, 12, (60,), generator=generator).tolist()
    history[7] = math.nan
    optimizer = sgd()
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.3, patience=patience - 1, threshold=0.0, eps=0.0
    )
    config = OptimConfig(
        lr=LR, schedule=Schedule.plateau, plateau_factor=0.3, plateau_patience=patience, warmup_steps=0
    )
    scales = []
    for seen in range(1, len(history) + 1):
        reference.step(history[seen - 1])
        scale = plateau_scale(history[:seen], mode=mode, config=config)
        scales.append(scale)
        rate = learning_rate(seen, config, horizon=None, plateau_scale=scale)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert min(scales) < 0.3  # the history made it fall more than once
