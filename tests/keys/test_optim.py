"""Every key of `optim`: what a run logs and saves, against Adam, the schedules and the moving average written out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq.runs.checkpoint import load_checkpoint

LR, BETAS, EPS, DECAY, CLIP, EMA = 0.004, (0.8, 0.95), 1e-3, 0.3, 0.5, 0.3
STEPS, WARMUP, HORIZON, FLOOR = 6, 2, 4, 0.25
EACH_STEP = (
    f"trainer.max_steps={STEPS}", "trainer.save_every=1", f"trainer.keep_last={STEPS}", "trainer.log_every=1",
    "trainer.eval_every=3", "trainer.eval_examples=0", "search.max_length=2", f"optim.lr={LR}",
    f"optim.warmup_steps={WARMUP}", f"optim.betas=[{BETAS[0]},{BETAS[1]}]", f"optim.eps={EPS}",
    f"optim.weight_decay={DECAY}", f"optim.clip_norm={CLIP}",
)  # fmt: skip
RUNS = {
    "linear": ("optim.name=adamw", "optim.schedule=linear", f"optim.horizon_steps={HORIZON}",
               f"optim.min_lr_ratio={FLOOR}"),
    "cosine": ("optim.name=adam", "optim.schedule=cosine"),
    "inverse_sqrt": ("optim.schedule=inverse_sqrt", "optim.min_lr_ratio=0.7", f"optim.ema_decay={EMA}"),
    # A learning rate at which the accuracy stays what it is: each evaluation but the first is one without gain.
    "plateau": ("optim.schedule=plateau", "optim.plateau_factor=0.3", "optim.plateau_patience=2", "optim.lr=1e-12",
                "optim.warmup_steps=0", "trainer.metric=valid/accuracy", "trainer.eval_every=1",
                f"trainer.save_every={STEPS}"),
}  # fmt: skip

RUNS = {name: (*EACH_STEP, *overrides) for name, overrides in RUNS.items()}

Trained = Callable[[str], Any]


def tensors(run: Any, step: int) -> dict[str, dict[str, Tensor]]:
    return load_checkpoint(Path(run.folder) / f"checkpoints/step-{step:08d}").tensors


def is_decayed(name: str, weight: Tensor) -> bool:
    return weight.ndim > 1 and "embed" not in name


def gradients(run: Any, step: int) -> dict[str, Tensor]:
    """What Adam took for the gradient at a step, from its first moments then and before."""
    now, before = tensors(run, step)["optimizer"], tensors(run, step - 1)["optimizer"]
    names = [name.removesuffix(".exp_avg") for name in now if name.endswith(".exp_avg")]
    return {name: (now[f"{name}.exp_avg"] - BETAS[0] * before[f"{name}.exp_avg"]) / (1 - BETAS[0]) for name in names}


def norm(gradient: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in gradient.values()))


def rate(name: str, step: int) -> float:
    """The learning rate of a step, of the schedules as papers and manuals write them."""
    if name == "plateau":
        return 1e-12 * 0.3 ** max(0, (step - 2) // 2)  # two evaluations without gain before steps 4 and 6
    if step <= WARMUP:
        return LR * step / WARMUP
    if name == "linear":
        return LR * max(1 - (1 - FLOOR) * (step - WARMUP) / (HORIZON - WARMUP), FLOOR)
    if name == "cosine":
        return LR * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2
    return LR * max(math.sqrt(WARMUP / step), 0.7)


@pytest.mark.parametrize("name", RUNS)
def test_the_learning_rate_is_the_schedules(trained: Trained, name: str) -> None:
    rates = trained(name).curve("train/lr")
    assert rates == pytest.approx({step: rate(name, step) for step in range(1, STEPS + 1)}, rel=1e-6, abs=1e-18)
    if name == "plateau":
        assert len(set(trained(name).curve("valid/accuracy").values())) == 1


@pytest.mark.parametrize("name", ["linear", "cosine"], ids=["adamw", "adam"])
def test_an_update_is_that_of_the_optimizer(trained: Trained, name: str) -> None:
    """Second moments from gradients, weights from both moments: Kingma and Ba (2015), Loshchilov and Hutter (2019)."""
    for step in range(2, STEPS + 1):
        found, before = tensors(trained(name), step), tensors(trained(name), step - 1)
        for weight, gradient in gradients(trained(name), step).items():
            first, second = (found["optimizer"][f"{weight}.{kind}"] for kind in ("exp_avg", "exp_avg_sq"))
            old = before["optimizer"][f"{weight}.exp_avg_sq"]
            torch.testing.assert_close(
                second, BETAS[1] * old + (1 - BETAS[1]) * gradient.square(), rtol=1e-3, atol=1e-10, msg=weight
            )
            kept = 1.0
            if name == "linear" and is_decayed(weight, first):
                kept -= rate(name, step) * DECAY
            first, second = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
            expected = kept * before["model"][weight] - rate(name, step) * first / (second.sqrt() + EPS)
            torch.testing.assert_close(found["model"][weight], expected, rtol=1e-5, atol=1e-7, msg=weight)


def test_adams_weight_decay_is_a_term_of_the_gradient(trained: Trained) -> None:
    """Without the term of matrices that are no embeddings, what is left is the clipped gradient."""
    run = trained("cosine")
    for step in range(2, STEPS + 1):
        before = tensors(run, step - 1)["model"]
        rest = {
            name: gradient - DECAY * before[name] * is_decayed(name, gradient)
            for name, gradient in gradients(run, step).items()
        }
        assert norm(rest) == pytest.approx(CLIP, rel=1e-4)
        assert norm(gradients(run, step)) > 1.5 * CLIP


def test_the_gradient_is_clipped_to_its_norm(trained: Trained) -> None:
    run = trained("linear")
    logged = run.curve("train/grad_norm")
    assert min(logged.values()) > 1.5 * CLIP
    for step in range(2, STEPS + 1):
        assert norm(gradients(run, step)) == pytest.approx(CLIP, rel=1e-4)


def test_the_moving_average_is_what_is_evaluated_and_kept(trained: Trained) -> None:
    run = trained("inverse_sqrt")
    for step in range(2, STEPS + 1):
        decay = min(EMA, (1 + step) / (10 + step))
        found, before = tensors(run, step), tensors(run, step - 1)
        for name, raw in found["training"].items():
            average = decay * before["model"][name] + (1 - decay) * raw
            torch.testing.assert_close(found["model"][name], average, rtol=1e-5, atol=1e-7, msg=name)
    assert EMA < (1 + STEPS) / (10 + STEPS), "the last steps have the full decay"
    moved = [(found["training"][name] - tensor).abs().max() for name, tensor in found["model"].items()]
    assert max(moved) > 1e-4
    results = run.results  # scores of the best checkpoint, from the file that holds the average
    assert run.curve("valid/loss")[results["best_step"]] == pytest.approx(results["valid"]["loss"], abs=1e-9)
