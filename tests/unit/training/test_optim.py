import copy
import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seq2seq.errors import UserError
from seq2seq.training.optim import (
    ExponentialMovingAverage,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    plateau_scale,
    restore_optimizer,
)
from seq2seq.training.optim_config import OptimConfig, OptimizerName, Schedule, resolve_horizon

SCHEDULES = list(Schedule)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class TinyModel(nn.Module):
    """An embedding tied to the output, a linear layer, a norm, and a parameter that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.fc1 = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.output = nn.Linear(4, 11, bias=False)
        self.output.weight = self.embed.weight
        self.unused = nn.Linear(2, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.norm(self.fc1(self.embed(tokens))))


def make_model(seed: int = 0) -> TinyModel:
    torch.manual_seed(seed)
    return TinyModel()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 11, (6,), generator=generator).to(next(model.parameters()).device)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


# --- the section --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("betas", [0.9]),
        ("betas", [0.9, 1.0]),
        ("eps", 0.0),
        ("weight_decay", -0.1),
        ("warmup_steps", -1),
        ("min_lr_ratio", 1.5),
        ("clip_norm", -1.0),
        ("plateau_factor", 1.0),
        ("plateau_patience", 0),
        ("ema_decay", 1.0),
        ("horizon_steps", 0),
    ],
)
def test_config_names_the_key_and_value_that_are_wrong(key: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        OptimConfig(**{key: value})
    assert f"optim.{key}={value}" in str(caught.value)


def test_config_is_one_that_omegaconf_can_type() -> None:
    schema = OmegaConf.structured(OptimConfig)
    merged = OmegaConf.merge(schema, {"schedule": "cosine", "betas": [0.8, 0.9], "horizon_steps": None})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, OptimConfig)
    assert config.schedule is Schedule.cosine
    assert config.betas == [0.8, 0.9]


def test_horizon_is_the_sections_own_or_the_runs_length() -> None:
    config = OptimConfig(schedule=Schedule.cosine)
    assert resolve_horizon(config, max_steps=300) == 300
    assert resolve_horizon(OptimConfig(schedule=Schedule.cosine, horizon_steps=50), max_steps=300) == 50
    assert resolve_horizon(OptimConfig(), max_steps=None) is None
    with pytest.raises(UserError, match=r"optim\.horizon_steps or trainer\.max_steps"):
        resolve_horizon(config, max_steps=None)
    assert resolve_horizon(OptimConfig(warmup_steps=300), max_steps=300) == 300
    with pytest.raises(UserError, match=r"optim\.warmup_steps=301 .* trainer\.max_steps=300"):
        resolve_horizon(OptimConfig(warmup_steps=301), max_steps=300)


# --- the learning rate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_starts_at_a_share_of_the_peak_and_ends_at_it(schedule: Schedule) -> None:
    config = OptimConfig(lr=0.3, schedule=schedule, warmup_steps=30)
    rates = [learning_rate(step, config, horizon=100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[29] == pytest.approx(0.3)
    assert max(rates) == pytest.approx(0.3)
    assert rates[30:] == sorted(rates[30:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_falls_below_the_floor_after_the_warmup(schedule: Schedule) -> None:
    config = OptimConfig(lr=1.0, schedule=schedule, warmup_steps=10, min_lr_ratio=0.25)
    rates = [learning_rate(step, config, horizon=50, plateau_scale=1.0) for step in range(11, 2000)]
    assert min(rates) >= 0.25
    if schedule is Schedule.plateau:
        assert learning_rate(11, config, horizon=50, plateau_scale=1e-3) == 0.25


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warmup_the_first_update_is_finite_and_positive(schedule: Schedule) -> None:
    assert 0 < learning_rate(1, OptimConfig(lr=0.5, schedule=schedule), horizon=10) <= 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_ends_with_its_warmup_ends_at_the_peak(schedule: Schedule) -> None:
    config = OptimConfig(lr=0.5, schedule=schedule, warmup_steps=10, horizon_steps=10)
    assert learning_rate(10, config, horizon=10) == 0.5
    assert learning_rate(11, config, horizon=10) < 0.5 or schedule in (
        Schedule.constant,
        Schedule.plateau,
    )


def test_cosine_and_linear_arrive_at_the_floor_and_stay() -> None:
    for schedule in (Schedule.cosine, Schedule.linear):
        config = OptimConfig(lr=2.0, schedule=schedule, warmup_steps=3, min_lr_ratio=0.1)
        assert learning_rate(40, config, horizon=40) == pytest.approx(0.2)
        assert learning_rate(4000, config, horizon=40) == pytest.approx(0.2)


def test_plateau_scale_counts_only_gains_and_only_for_its_schedule() -> None:
    config = OptimConfig(schedule=Schedule.plateau, plateau_factor=0.5, plateau_patience=2)
    assert plateau_scale([], mode="max", config=config) == 1.0
    assert plateau_scale([1, 2, 3, 4], mode="max", config=config) == 1.0
    assert plateau_scale([1, 2, 3, 4], mode="min", config=config) == 0.5
    assert plateau_scale([5, 5, 5, 5, 5], mode="max", config=config) == 0.25
    assert plateau_scale([math.nan, math.nan], mode="min", config=config) == 0.5
    assert plateau_scale([5, 5, 5], mode="max", config=OptimConfig()) == 1.0


# --- the optimizer ------------------------------------------------------------------------------------------


def test_only_matrices_that_are_no_embeddings_decay() -> None:
    model = make_model()
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(weight_decay=0.1), device_type="cpu")
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: decay[id(parameter)] for name, parameter in model.named_parameters()}
    assert {name for name, value in by_name.items() if value == 0.1} == {"fc1.weight", "unused.weight"}
    assert set(by_name.values()) == {0.0, 0.1}


def test_frozen_parameters_are_left_out_and_stay_as_they_are() -> None:
    model = make_model()
    model.fc1.weight.requires_grad_(False)
    before = model.fc1.weight.clone()
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(weight_decay=0.1), device_type="cpu")
    train(model, optimizer, range(2))
    assert torch.equal(model.fc1.weight, before)
    assert "fc1.weight.exp_avg" not in optimizer_tensors(optimizer)


@pytest.mark.parametrize("decoupled", [True, False])
def test_first_update_is_adams_closed_form(decoupled: bool) -> None:
    # at step 1 bias correction makes the moments g and g^2: the update is lr * g / (|g| + eps)
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 4.0]]))
    config = OptimConfig(name=OptimizerName.adamw if decoupled else OptimizerName.adam, weight_decay=0.1, lr=0.01)
    optimizer = build_optimizer([("fc1.weight", weight)], config, device_type="cpu")
    start, gradient = weight.detach().clone(), torch.tensor([[0.3, -0.1], [0.02, -5.0]])
    weight.grad = gradient.clone()
    optimizer.step()
    if decoupled:
        expected = start * (1 - 0.01 * 0.1) - 0.01 * gradient.sign()
    else:
        expected = start - 0.01 * (gradient + 0.1 * start).sign()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])
@pytest.mark.parametrize("name", list(OptimizerName))
def test_restored_optimizer_goes_on_bit_for_bit(name: OptimizerName, device: str) -> None:
    config = OptimConfig(name=name, weight_decay=0.01)
    model = make_model().to(device)
    optimizer = build_optimizer(model.named_parameters(), config, device_type=device)
    train(model, optimizer, range(5))
    live = optimizer_tensors(optimizer)
    saved = {key: tensor.to("cpu", copy=True) for key, tensor in live.items()}

    resumed = copy.deepcopy(model)
    fresh = build_optimizer(resumed.named_parameters(), config, device_type=device)
    restore_optimizer(fresh, saved)

    unrestored = copy.deepcopy(resumed)
    empty = build_optimizer(unrestored.named_parameters(), config, device_type=device)

    train(model, optimizer, range(5, 10))
    train(resumed, fresh, range(5, 10))
    train(unrestored, empty, range(5, 10))
    for (key, expected), actual in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, actual), key
    assert not torch.equal(model.fc1.weight, unrestored.fc1.weight)  # so the state did matter


def test_saved_names_do_not_depend_on_what_has_been_updated() -> None:
    model = make_model()
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(), device_type="cpu")
    before = optimizer_tensors(optimizer)
    train(model, optimizer, range(1))
    after = optimizer_tensors(optimizer)
    assert before.keys() == after.keys()
    assert {name.rsplit(".", 1)[0] for name in after} == dict(model.named_parameters()).keys()


def test_restore_refuses_and_names_what_does_not_fit() -> None:
    model = make_model()
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(), device_type="cpu")
    tensors = optimizer_tensors(optimizer)
    missing = {key: value for key, value in tensors.items() if key != "fc1.bias.exp_avg"}
    with pytest.raises(UserError, match=r"missing fc1\.bias\.exp_avg$"):
        restore_optimizer(optimizer, missing)
    for count, message in ((3, r"missing (\S+, ){2}\S+$"), (5, r"missing (\S+, ){2}\S+ and 2 more$")):
        few = dict(sorted(tensors.items())[count:])
        with pytest.raises(UserError, match=message):
            restore_optimizer(optimizer, few)
    with pytest.raises(UserError, match=r"unknown fc9\.exp_avg"):
        restore_optimizer(optimizer, {**tensors, "fc9.exp_avg": torch.zeros(1)})
    with pytest.raises(UserError, match=r"fc1\.bias\.exp_avg has shape \[5\], not \[4\]"):
        restore_optimizer(optimizer, {**tensors, "fc1.bias.exp_avg": torch.zeros(5)})


# --- averaged weights ---------------------------------------------------------------------------------------


def test_average_follows_torchs_ema_once_the_warmup_is_over() -> None:
    model = make_model()
    ema = ExponentialMovingAverage(model, decay=0.15)  # (1 + 1) / (10 + 1) > 0.15: no warm-up at all
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.15))
    reference.update_parameters(model)  # torch's first call only copies
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(), device_type="cpu")
    for step in range(6):
        train(model, optimizer, range(step, step + 1))
        ema.update(model)
        reference.update_parameters(model)
    expected = dict(reference.module.named_parameters())
    for name, value in ema.tensors().items():
        if name != "updates":
            torch.testing.assert_close(value, expected[name].detach())


def test_average_warms_up_by_the_count_of_updates() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = ExponentialMovingAverage(model, decay=0.999)
    expected = 0.0
    for n in range(1, 50):
        nn.init.constant_(model.weight, float(n))
        ema.update(model)
        decay = min(0.999, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert ema.tensors()["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert ema.updates == 49


def test_applied_average_is_undone_exactly_even_after_an_error() -> None:
    model = make_model()
    ema = ExponentialMovingAverage(model, decay=0.5)
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(), device_type="cpu")
    train(model, optimizer, range(3))
    ema.update(model)
    own = {name: value.clone() for name, value in model.state_dict().items()}

    def look_and_fail() -> None:
        with ema.applied(model):
            assert torch.equal(model.fc1.weight, ema.tensors()["fc1.weight"])
            assert model.output.weight is model.embed.weight
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        look_and_fail()
    assert not torch.equal(own["fc1.weight"], ema.tensors()["fc1.weight"])
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())


def test_restored_average_goes_on_bit_for_bit() -> None:
    model = make_model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    optimizer = build_optimizer(model.named_parameters(), OptimConfig(), device_type="cpu")
    train(model, optimizer, range(3))
    ema.update(model)
    resumed = ExponentialMovingAverage(make_model(seed=5), decay=0.9)
    resumed.restore({name: value.clone() for name, value in ema.tensors().items()})
    train(model, optimizer, range(3, 6))
    ema.update(model)
    resumed.update(model)
    assert resumed.updates == 2
    assert all(torch.equal(resumed.tensors()[name], value) for name, value in ema.tensors().items())
    with pytest.raises(UserError, match="missing updates"):
        resumed.restore({name: value for name, value in ema.tensors().items() if name != "updates"})
