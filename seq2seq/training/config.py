"""The `trainer` section of the configuration."""

import math
from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.system.config import Device, Precision

_MAX_THREADS = 1024
_MAX_TIMEOUT_MINUTES = 7 * 24 * 60


class Averaging(str, Enum):
    """Which checkpoints are averaged at the end of a run."""

    none = "none"
    last = "last"
    best = "best"


class MetricMode(str, Enum):
    """Whether a metric is better when smaller or larger; ``auto`` derives it from the name."""

    auto = "auto"
    min = "min"
    max = "max"


class SaveFailure(str, Enum):
    """What to do when a checkpoint cannot be written (a full disk): end the run, or warn and continue training."""

    stop = "stop"
    warn = "warn"


_IF_COVERAGE = {"used_if": ("model.coverage", (True,))}


@dataclass
class TrainerConfig:
    """The training loop.

    Attributes:
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        threads: CPU threads; null keeps torch's choice.
        precision: ``auto`` takes bf16 where the hardware multiplies it natively, else fp32.
        max_steps: Optimizer steps of the run; null is no limit.
        max_epochs: Passes over the data; null is no limit.
        max_minutes: Minutes of training, summed over resumes; null is no limit.
        stop_after_minutes: Minutes after which this process saves and ends with code 75.
        batch_tokens: Examples × max(padded source, padded target) of a micro-batch on one rank.
        accumulate: Micro-batches per step on each rank.
        overfit_batches: For debugging: train on this many micro-batches, the first of the first epoch, again and again;
            null trains on all examples.
        label_smoothing: Share of the target probability spread over the vocabulary, [0, 1).
        coverage_loss_weight: Weight of the coverage loss of ``model.coverage`` (0 to 1 per target token), which is
            added to the cross-entropy in nats (the λ of See et al., 2017, eq. 13, arXiv:1704.04368).
        coverage_loss_start: Steps before the coverage loss is added.
        checkpoint_activations: Whether the backward pass recomputes activations instead of storing them: for long
            inputs, less memory for about a third more time.
        compile: Whether the training objective goes through ``torch.compile``. For GPUs: on a CPU it is slower.
        deterministic: Whether an operation without a deterministic kernel is an error.
        log_every: Steps between logs of training metrics.
        eval_every: Steps between evaluations.
        eval_examples: Validation examples decoded, greedily, at each evaluation; 0 is none.
        samples: Validation examples shown at each evaluation.
        attention_images: Attention heat maps drawn at each evaluation, at most 4 and at most ``samples``.
        save_every: Steps between checkpoints.
        save_failure: What to do when a checkpoint cannot be written.
        keep_last: Checkpoints kept besides the best.
        keep_best: Best checkpoints kept.
        metric: Metric that early stopping and the choice of the best checkpoint monitor: a ``valid/`` tag.
        metric_mode: Whether smaller or larger is better; auto knows the metrics of this package.
        patience: Evaluations without improvement that end the run; null disables early stopping.
        average: Which checkpoints are averaged at the end; the average is kept if it is better than the best.
        average_checkpoints: Number of checkpoints to average.
        max_skipped_steps: Consecutive updates without a finite loss and gradient that end the run; checked when
            metrics are logged. Fewer are skipped and counted.
        init_from: Run folder or checkpoint to take the initial weights and the tokenizer from.
        timeout_minutes: How long ranks wait for each other.
        profile_steps: ``[first, last]`` step, from 1, that the profiler records, into ``profile/`` in the run folder;
            null records nothing.
    """

    device: Device = Device.auto
    threads: int | None = None
    precision: Precision = Precision.auto
    max_steps: int | None = 20_000
    max_epochs: int | None = None
    max_minutes: float | None = None
    stop_after_minutes: float | None = None
    batch_tokens: int = 4096
    accumulate: int = 1
    overfit_batches: int | None = None
    label_smoothing: float = 0.1
    coverage_loss_weight: float = field(default=1.0, metadata=_IF_COVERAGE)
    coverage_loss_start: int = field(default=0, metadata=_IF_COVERAGE)
    checkpoint_activations: bool = False
    compile: bool = False
    deterministic: bool = False
    log_every: int = 50
    eval_every: int = 1000
    eval_examples: int = 500
    samples: int = 4
    attention_images: int = 2
    save_every: int = 1000
    save_failure: SaveFailure = SaveFailure.stop
    keep_last: int = 1
    keep_best: int = 1
    metric: str = "valid/loss"
    metric_mode: MetricMode = MetricMode.auto
    patience: int | None = None
    average: Averaging = Averaging.none
    average_checkpoints: int = field(default=5, metadata={"used_if": ("trainer.average", ("last", "best"))})
    max_skipped_steps: int = 10
    init_from: str | None = None
    timeout_minutes: float = 30.0
    profile_steps: list[int] | None = None

    def __post_init__(self) -> None:
        for key in ("batch_tokens", "accumulate", "log_every", "eval_every", "save_every", "keep_last",
                    "keep_best", "average_checkpoints", "max_skipped_steps"):  # fmt: skip
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        _require(
            self.threads is None or 1 <= self.threads <= _MAX_THREADS, "threads", self.threads,
            f"from 1 to {_MAX_THREADS}, or null",
        )  # fmt: skip
        for key in ("max_steps", "max_epochs", "patience", "overfit_batches"):
            value = getattr(self, key)
            _require(value is None or value >= 1, key, value, "at least 1, or null")
        for key in ("max_minutes", "stop_after_minutes"):
            value = getattr(self, key)
            _require(value is None or 0 < value < math.inf, key, value, "above 0, or null for no limit")
        _require(0 < self.timeout_minutes <= _MAX_TIMEOUT_MINUTES, "timeout_minutes", self.timeout_minutes,
                 f"above 0, at most {_MAX_TIMEOUT_MINUTES} (a week)")  # fmt: skip
        for key in ("eval_examples", "samples", "coverage_loss_weight", "coverage_loss_start"):
            _require(0 <= getattr(self, key) < math.inf, key, getattr(self, key), "at least 0, and finite")
        _require(0 <= self.attention_images <= 4, "attention_images", self.attention_images, "0 to 4")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0, below 1")
        _require(self.metric.startswith("valid/"), "metric", self.metric, "a tag such as valid/loss or valid/bleu")
        if self.profile_steps is not None:
            valid = len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1]
            last = "" if self.max_steps is None else f", at most trainer.max_steps={self.max_steps}"
            _require(
                valid and (self.max_steps is None or self.profile_steps[1] <= self.max_steps), "profile_steps",
                self.profile_steps, f"the first and the last step, from 1{last}, or null",
            )  # fmt: skip
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None and self.patience is None:
            raise UserError(
                "trainer.max_steps, max_epochs, max_minutes and patience are all null: the run would never end; "
                "set one of them"
            )

    @property
    def mode(self) -> str:
        """``min`` or ``max``."""
        if self.metric_mode is not MetricMode.auto:
            return str(self.metric_mode.value)
        return "min" if self.metric.removeprefix("valid/") in ("loss", "ppl", "ter") else "max"


def _require(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise UserError(f"trainer.{key}={value}: must be {rule}")
