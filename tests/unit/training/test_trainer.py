"""The loop around the steps: what is due when, what is kept, what is averaged, what a resumed run continues from.

The model and its updates are real; the stream repeats three batches, and evaluations say what a test wants.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from seq2seq.data.batching import Batch
from seq2seq.data.loader import MicroBatch, StepBatches
from seq2seq.errors import Interrupted, UserError
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.tracking import Tracker
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.training.config import Averaging, TrainerConfig
from seq2seq.training.optim_config import OptimConfig
from seq2seq.training.profiling import StepProfiler
from seq2seq.training.step import TrainStep
from seq2seq.training.trainer import Trainer, TrainingContext
from seq2seq.training.validation import ValidationResult

V = 12
EPOCH = 3  # micro-batches
WARMUP = 3


def model(seed: int = 3) -> Seq2Seq:
    torch.manual_seed(seed)
    config = TransformerConfig(d_model=8, d_ff=8, num_heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0)
    return build_model(config, Vocabulary(V, V, joint=True))


def batch(number: int) -> Batch:
    """Two sentences whose lengths depend on the number."""
    draw = torch.Generator().manual_seed(number)
    src, tgt = (torch.randint(4, V, (2, 3 + number), generator=draw) for _ in range(2))
    tgt_in = F.pad(tgt, (1, 0), value=2)[:, :-1]
    return Batch(src, tgt_in, torch.arange(tgt.numel()), tgt.flatten(), torch.arange(2))


def flops(number: int) -> int:
    """Of a training step on the batch."""
    of = batch(number)
    return model().multiplications().training_flops(*of.src.shape, of.tgt_in.size(1), target_tokens=of.tokens)


class Stream:
    """Three micro-batches an epoch, one a step; a signal comes while the step after `signal_after` is waited for."""

    def __init__(self, signal_after: int | None = None) -> None:
        self.signal_after = signal_after
        self.begun: list[tuple[int, int]] = []

    def largest_batches(self, epoch: int) -> list[MicroBatch]:
        return []

    def steps(self, epoch: int, position: int) -> Iterator[StepBatches]:
        self.begun.append((epoch, position))
        for number in range(epoch * EPOCH + position, 1000):
            if number == self.signal_after:
                os.kill(os.getpid(), signal.SIGTERM)
            here, place = batch(number % EPOCH), number % EPOCH + 1
            yield StepBatches([MicroBatch(here, 1.0)], here.tokens, place / 4, number // EPOCH, place, EPOCH)


class Validator:
    """Finds the next of some values of the metric; a signal comes once it has shown what it found at some step."""

    def __init__(self, values: list[float], signal_at: int | None = None) -> None:
        self.values = iter(values)
        self.signal_at = signal_at
        self.steps: list[int] = []

    def run(self, model: Seq2Seq) -> ValidationResult:
        return ValidationResult({"valid/loss": next(self.values), "valid/bleu": 7.0}, [], [], [])

    def log(self, result: ValidationResult, step: int) -> None:
        self.steps.append(step)
        if step == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)


class Recorder(Tracker):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[int, dict[str, float]] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.logged[step] = dict(values)


class Setting:
    """A trainer in a folder, with what it talks to."""

    def __init__(
        self, folder: Path, values: list[float], *, signal_after: int | None = None,
        signal_at_evaluation: int | None = None, lr: float = 0.01, **changes: Any,
    ) -> None:  # fmt: skip
        self.stream, self.validator = Stream(signal_after), Validator(values, signal_at_evaluation)
        self.tracker = Recorder()
        self.store = CheckpointStore(folder)
        settings = {"max_steps": 8, "log_every": 100, "eval_every": 2, "save_every": 4} | changes
        runtime = Runtime(torch.device("cpu"), Precision.fp32)
        config, optim = TrainerConfig(**settings), OptimConfig(lr=lr, warmup_steps=WARMUP)
        self.trainer = Trainer(
            TrainStep(model(), config, optim, runtime=runtime, world=World(), seed=1),
            self.stream,  # type: ignore[arg-type]
            validator=self.validator,  # type: ignore[arg-type]
            config=config,
            optim_config=optim,
            context=TrainingContext(
                runtime,
                World(),
                self.tracker,
                self.store,
                StepProfiler(None, folder, runtime.device),
                {"tokenizer": "abc"},
                on_save=lambda: None,
            ),
        )

    def linked(self, name: str) -> int:
        return self.store.load(name).step

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.store.resolve(name) / "model.safetensors")


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Setting]:
    def build(values: list[float], *, folder: str = "checkpoints", **config: Any) -> Setting:
        return Setting(tmp_path / folder, values, **config)

    return build


def test_what_is_due_when(made: Callable[..., Setting]) -> None:
    """Every so many steps and at the end; and a save where the best evaluation was."""
    run = made([5.0, 4.0, 6.0, 6.0], max_steps=11, log_every=4, eval_every=3, save_every=5, keep_last=100)
    assert run.trainer.fit() == "trainer.max_steps=11 reached"
    assert list(run.tracker.logged) == [4, 8, 11]
    assert run.validator.steps == [3, 6, 9, 11]
    assert run.store.steps() == [3, 5, 6, 10, 11]
    assert run.trainer.state.history == [(3, 5.0), (6, 4.0), (9, 6.0), (11, 6.0)]
    assert (run.linked("last"), run.linked("best")) == (11, 6)
    assert run.store.load("last").fingerprints == {"tokenizer": "abc"}


@pytest.mark.parametrize(
    ("values", "config", "kept"),
    [
        ([5.0, 3.0, 4.0, 6.0], {}, [4, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"keep_last": 3}, [4, 6, 7, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"keep_best": 2}, [4, 6, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"keep_best": 3, "keep_last": 2}, [2, 4, 6, 7, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"metric": "valid/accuracy"}, [8]),
        ([5.0, 3.0, 3.0, 3.0], {}, [4, 8]),  # the earliest of equals
        ([math.nan, math.nan, math.nan, 4.0], {"keep_best": 2}, [8]),
        ([math.nan, 3.0, math.nan, 4.0], {"keep_best": 2}, [4, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"average": Averaging.last, "average_checkpoints": 3}, [4, 6, 7, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"average": Averaging.best, "average_checkpoints": 3}, [2, 4, 6, 8]),
        ([5.0, 3.0, 4.0, 6.0], {"average": Averaging.last, "average_checkpoints": 1, "keep_last": 2}, [4, 7, 8]),
    ],
)
def test_which_checkpoints_are_kept(
    made: Callable[..., Setting], values: list[float], config: dict[str, Any], kept: list[int]
) -> None:
    """One is saved at each step, an evaluation every second one."""
    run = made(values, save_every=1, **config)
    run.trainer.fit()
    assert run.store.steps() == kept


def test_a_stop_saves_where_it_is_and_that_is_used_for_resuming_only(made: Callable[..., Setting]) -> None:
    config = {"keep_last": 2, "eval_every": 8, "average": Averaging.last, "average_checkpoints": 2}
    whole = made([5.0], folder="whole", **config)
    whole.trainer.fit()
    stopped = made([], signal_after=5, **config)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 5") as stop:
        stopped.trainer.fit()
    assert stop.value.exit_code == 143
    assert stopped.store.steps() == [4, 5]
    assert stopped.trainer.state.interruption_steps == [5]

    resumed = made([5.0, 4.0], **config)
    checkpoint = resumed.store.latest_valid()
    assert checkpoint is not None
    resumed.trainer.restore(checkpoint)
    resumed.trainer.fit()
    assert resumed.stream.begun == [(1, 2)], "the sixth micro-batch"
    assert resumed.store.steps() == whole.store.steps() == [4, 8]
    for name, tensor in whole.weights("last").items():
        assert torch.equal(resumed.weights("last")[name], tensor)


def test_an_evaluation_at_a_stop_makes_no_checkpoint_one_of_the_best(made: Callable[..., Setting]) -> None:
    """A run that was not stopped there would have saved the evaluations that were the best until then, and no other."""
    config = {"keep_best": 3, "save_every": 100}
    values = [5.0, 6.0, 7.0, 8.0]
    stopped = made(values[:2], signal_at_evaluation=4, **config)
    with pytest.raises(Interrupted):
        stopped.trainer.fit()
    assert stopped.trainer.state.history == [(2, 5.0), (4, 6.0)]
    assert stopped.store.steps() == [2, 4]
    resumed, whole = made(values[2:], **config), made(values, folder="whole", **config)
    resumed.trainer.restore(resumed.store.load("last"))
    resumed.trainer.fit()
    whole.trainer.fit()
    assert resumed.trainer.state.history == whole.trainer.state.history
    assert resumed.store.steps() == whole.store.steps() == [2, 8]


def test_a_run_that_was_stopped_is_averaged_over_regular_checkpoints_alone(made: Callable[..., Setting]) -> None:
    run = made([4.0], signal_after=5, eval_every=100, average=Averaging.last, average_checkpoints=3, save_every=2)
    with pytest.raises(Interrupted):
        run.trainer.fit()
    assert run.store.steps() == [2, 4, 5]
    run.trainer.average()
    assert run.store.load("average").state["averaged"] == [2, 4]


def test_a_checkpoint_that_becomes_due_where_the_run_was_stopped_counts(made: Callable[..., Setting]) -> None:
    """The run ends at the step at which an earlier one was stopped: a run that was not would save there."""
    stopped = made([], signal_after=3, eval_every=100)
    with pytest.raises(Interrupted):
        stopped.trainer.fit()
    state = stopped.trainer.state
    assert (state.epoch, state.position, state.interruption_steps) == (1, 0, [3])
    shortened = made([5.0], max_steps=3, eval_every=100)
    shortened.trainer.restore(shortened.store.load("3"))
    shortened.trainer.fit()
    assert shortened.trainer.state.interruption_steps == []
    assert shortened.trainer.state.history == [(3, 5.0)]
    assert shortened.store.load("last").state["unscheduled"] == []
    assert shortened.linked("best") == 3


@pytest.mark.parametrize(
    ("average", "chosen", "value", "is_best"),
    [(Averaging.last, [6, 7, 8], 2.9, True), (Averaging.last, [6, 7, 8], 3.0, False),
     (Averaging.last, [6, 7, 8], math.nan, False), (Averaging.best, [6, 2, 4], 2.9, True)],
)  # fmt: skip
def test_the_average_is_the_mean_of_its_checkpoints_and_the_best_if_it_scores_better(
    made: Callable[..., Setting], average: Averaging, chosen: list[int], value: float, is_best: bool
) -> None:
    run = made([5.0, 3.0, 6.0, 7.0, value], save_every=1, average=average, average_checkpoints=3)
    run.trainer.fit()
    members = [run.weights(str(step)) for step in chosen]
    run.trainer.average()
    found = run.store.load("average")
    assert found.step == 8
    assert found.state["averaged"] == chosen
    for name, tensor in run.weights("average").items():
        mean = torch.stack([weights[name].double() for weights in members]).mean(0)
        torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=0)
        assert torch.equal(run.trainer.model.state_dict()[name], tensor), "it is what was evaluated"
    assert (run.store.resolve("best").name == "average") == is_best


def test_nothing_is_averaged_where_nothing_is_asked_for_or_nothing_was_good(made: Callable[..., Setting]) -> None:
    for folder, average in (("none", Averaging.none), ("best", Averaging.best)):
        run = made([math.nan] * 4, folder=folder, average=average)
        run.trainer.fit()
        run.trainer.average()
        assert not (run.store.root / "average").exists()


def test_a_resumed_run_leaves_behind_what_comes_after_its_checkpoint(made: Callable[..., Setting]) -> None:
    """Those after it were passed over as damaged; the links follow."""
    values = [5.0, 4.0, 3.0, 2.0]
    made(values, keep_last=100, keep_best=100).trainer.fit()
    again = made([])
    assert again.store.steps() == [2, 4, 6, 8]
    again.trainer.restore(again.store.load("4"))
    assert again.store.steps() == [4]
    assert (again.linked("last"), again.linked("best")) == (4, 4)
    state = again.trainer.state
    assert (state.step, state.epoch, state.position, state.epochs) == (4, 1, 1, 4 / EPOCH)
    assert state.target_tokens == sum(batch(number % EPOCH).tokens for number in range(4))
    assert state.history == [(2, 5.0), (4, 4.0)]


def test_an_evaluation_that_is_missing_comes_first(made: Callable[..., Setting]) -> None:
    """A checkpoint of a step at which one is due, and which has none: a signal aborted it, or a limit was lowered."""
    first = made([], signal_after=2, eval_every=100)
    with pytest.raises(Interrupted):
        first.trainer.fit()
    again = made([5.0, 4.0], max_steps=4)
    again.trainer.restore(again.store.load("2"))
    again.trainer.fit()
    assert again.trainer.state.history == [(2, 5.0), (4, 4.0)]
    assert again.validator.steps == [2, 4]


def reference(own: Seq2Seq, number: int) -> tuple[float, float, int, float]:
    """Smoothed loss, loss and right tokens of a batch as sums, and the norm of the gradient of the mean."""
    here = batch(number)
    hidden = own.decode(here.tgt_in, own.encode(here.src, torch.ones_like(here.src, dtype=torch.bool)))
    logits = F.linear(hidden.features.flatten(0, 1), own.output.weight)
    smoothed = F.cross_entropy(logits, here.labels, label_smoothing=0.1, reduction="sum")
    nll = F.cross_entropy(logits, here.labels, reduction="sum")
    gradients = torch.autograd.grad(smoothed / here.tokens, list(own.parameters()))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    return smoothed.item(), nll.item(), int((logits.argmax(1) == here.labels).sum()), norm


def test_figures_are_means_over_the_steps_since_the_last_log(made: Callable[..., Setting]) -> None:
    """At a learning rate that changes no weight, so that they can be computed from the first ones."""
    run = made([5.0] * 2, lr=1e-15, log_every=2, max_steps=5, eval_every=5)
    began = time.perf_counter()
    run.trainer.fit()
    elapsed = time.perf_counter() - began
    assert list(run.tracker.logged) == [2, 4, 5]
    expected = [reference(model().train(), number) for number in range(EPOCH)]
    tokens = [batch(number).tokens for number in range(EPOCH)]
    rates = {2: 1e-15 * 2 / WARMUP, 4: 1e-15 * math.sqrt(WARMUP / 4), 5: 1e-15 * math.sqrt(WARMUP / 5)}
    seconds = 0.0
    for step, members in ((2, (0, 1)), (4, (2, 0)), (5, (1,))):
        values, count = run.tracker.logged[step], sum(tokens[n] for n in members)
        losses, nlls, right, norms = (sum(expected[n][column] for n in members) for column in range(4))
        assert values["train/loss"] == pytest.approx(losses / count, rel=1e-5)
        assert values["train/ppl"] == pytest.approx(math.exp(nlls / count), rel=1e-5)
        assert values["train/accuracy"] == pytest.approx(100 * right / count)
        assert values["train/grad_norm"] == pytest.approx(norms / len(members), rel=1e-4)
        assert values["train/lr"] == pytest.approx(rates[step], rel=1e-6, abs=0)
        assert values["train/epoch"] == pytest.approx(step / EPOCH)
        assert values["perf/padding_share"] == pytest.approx(sum(n + 1 for n in members) / 4 / len(members))
        duration = count / values["perf/target_tokens_per_sec"]
        assert values["perf/flops_per_sec"] * duration == pytest.approx(sum(map(flops, members)))
        seconds += duration
        assert not {"train/coverage_loss", "train/loss_scale", "train/skipped_updates"} & values.keys()
    assert run.trainer.state.step_seconds == pytest.approx(seconds)
    assert 0 < seconds < elapsed


@pytest.mark.parametrize("values", [[5.0, 4.0, 4.5, 4.5], [math.nan] * 2])
def test_no_improvement_ends_a_run(made: Callable[..., Setting], values: list[float]) -> None:
    run = made(values, max_steps=100, patience=2, save_every=100)
    reason = run.trainer.fit()
    assert reason == "valid/loss has not improved for 2 evaluations (trainer.patience=2)"
    assert run.trainer.state.step == 2 * len(values)
    assert run.linked("last") == 2 * len(values), "the evaluation that ended it is saved"


def test_what_runs_beside_the_first_steps_keeps_a_run_from_saving(made: Callable[..., Setting]) -> None:
    def refused() -> None:
        raise UserError("the data have changed")

    run = made([5.0] * 4, save_every=1)
    with pytest.raises(UserError, match="the data have changed"):
        run.trainer.fit(background_task=refused)
    assert run.store.steps() == []


def test_a_time_limit_ends_a_process_and_the_seconds_add_up(made: Callable[..., Setting]) -> None:
    run = made([], stop_after_minutes=1e-9, eval_every=100)
    with pytest.raises(Interrupted, match=r"stopped by trainer\.stop_after_minutes=1e-09 after step 1;") as stop:
        run.trainer.fit()
    assert stop.value.exit_code == 75
    assert 0 < run.trainer.state.seconds < 100
    again = made([], stop_after_minutes=1e-9, eval_every=100)
    checkpoint = again.store.load("last")
    assert checkpoint.state["seconds"] == run.trainer.state.seconds
    checkpoint.state["seconds"] = 1000.0
    again.trainer.restore(checkpoint)
    with pytest.raises(Interrupted, match="after step 2"):
        again.trainer.fit()
    assert 1000 < again.trainer.state.seconds < 1100
