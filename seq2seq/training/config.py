"""The `trainer` section of the configuration."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from seq2seq.errors import UserError
from seq2seq.metrics.config import LOWER_IS_BETTER
from seq2seq.system.config import Device, Precision

LOSS_METRICS = ("loss", "ppl", "accuracy")  # of the whole validation set; other metrics are of decoded examples
_SMALLER_IS_BETTER = {"loss", "ppl"} | LOWER_IS_BETTER

Ranges = Sequence[tuple[Sequence[str], Callable[[Any], bool], str]]

_MAX_THREADS = 1024
_MAX_TIMEOUT_MINUTES = 7 * 24 * 60

# Keys, whether a value of theirs is in the range (NaN never is), and the range in words.
_RANGES: Ranges = (
    (
        ("batch_tokens", "accumulate", "log_every", "eval_every", "save_every", "keep_last", "keep_best",
         "average_checkpoints", "max_skipped_steps"),
        lambda value: value >= 1, "at least 1",
    ),
    (
        ("max_steps", "patience", "overfit_batches"),
        lambda value: value is None or value >= 1, "at least 1, or null",
    ),
    (
        ("threads",),
        lambda value: value is None or 1 <= value <= _MAX_THREADS, f"from 1 to {_MAX_THREADS}, or null",
    ),
    (
        ("max_epochs", "max_minutes", "stop_after_minutes"),
        lambda value: value is None or 0 < value < math.inf, "above 0, or null for no limit",
    ),
    (
        ("timeout_minutes",),
        lambda value: 0 < value <= _MAX_TIMEOUT_MINUTES, f"above 0, at most {_MAX_TIMEOUT_MINUTES} (a week)",
    ),
    (
        ("eval_examples", "samples", "coverage_loss_weight", "coverage_loss_start"),
        lambda value: 0 <= value < math.inf, "at least 0, and finite",
    ),
    (("attention_images",), lambda value: 0 <= value <= 4, "0 to 4"),
    (("label_smoothing",), lambda value: 0 <= value < 1, "at least 0, below 1"),
    (("metric",), lambda value: value.startswith("valid/"), "a tag such as valid/loss or valid/bleu"),
)  # fmt: skip


def check_ranges(section: str, config: object, ranges: Ranges) -> None:
    """Raises a UserError that names the first key of a section's configuration whose value is out of its range."""
    for keys, is_valid, rule in ranges:
        for key in keys:
            value = getattr(config, key)
            if not is_valid(value):
                raise UserError(f"{section}.{key}={value}: must be {rule}")


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


class InitTokenizer(str, Enum):
    """Which tokenizer a run that starts from another one uses: that of its base, or one trained on its own data."""

    base = "base"
    own = "own"


_IF_COVERAGE = {"used_if": ("model.coverage", (True,))}


@dataclass
class TrainerConfig:
    """The training loop.

    Attributes:
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        threads: CPU threads; null keeps torch's choice.
        precision: ``auto`` takes bf16 where the hardware multiplies it natively, else fp32.
        max_steps: Optimizer steps of the run; null is no limit.
        max_epochs: Passes over the data, also parts of one (0.5); null is no limit.
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
        metric_mode: Whether smaller or larger is better; ``auto`` knows, and another value must agree with it.
        patience: Evaluations without improvement that end the run; null disables early stopping.
        average: Which checkpoints are averaged at the end; the average is kept if it is better than the best.
        average_checkpoints: Number of checkpoints to average.
        max_skipped_steps: Consecutive updates without a finite loss and gradient that end the run; checked when
            metrics are logged. Fewer are skipped and counted.
        init_from: Run folder or checkpoint to take the initial weights from, and the tokenizer.
        init_tokenizer: With ``init_from``: ``base`` takes its tokenizer too; ``own`` trains one, and takes the rows of
            embeddings and output layer for the tokens that both have, by their text; the others keep random values.
        timeout_minutes: How long ranks wait for each other.
        profile_steps: ``[first, last]`` step, from 1, that the profiler records, into ``profile/`` in the run folder;
            null records nothing.
    """

    device: Device = Device.auto
    threads: int | None = None
    precision: Precision = Precision.auto
    max_steps: int | None = 20_000
    max_epochs: float | None = None
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
    init_tokenizer: InitTokenizer = InitTokenizer.base
    timeout_minutes: float = 30.0
    profile_steps: list[int] | None = None

    def __post_init__(self) -> None:
        """Checks the ranges, and that something ends the run."""
        check_ranges("trainer", self, _RANGES)
        if self.profile_steps is not None:
            valid = len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1]
            last = "" if self.max_steps is None else f", at most trainer.max_steps={self.max_steps}"
            if not valid or (self.max_steps is not None and self.profile_steps[1] > self.max_steps):
                raise UserError(
                    f"trainer.profile_steps={self.profile_steps}: must be the first and the last step, from 1{last}, "
                    "or null"
                )
        if self.metric_mode.value not in ("auto", self.mode):
            better = "smaller" if self.mode == "min" else "larger"
            raise UserError(
                f"trainer.metric_mode={self.metric_mode.value} contradicts trainer.metric={self.metric}, which is "
                f"better when {better}: leave trainer.metric_mode out"
            )
        if self.init_tokenizer is InitTokenizer.own and self.init_from is None:
            raise UserError("trainer.init_tokenizer=own needs a run to start from: give trainer.init_from=RUN too")
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None and self.patience is None:
            raise UserError(
                "trainer.max_steps, max_epochs, max_minutes and patience are all null: the run would never end; "
                "set one of them"
            )

    @property
    def mode(self) -> str:
        """``min`` or ``max``."""
        return "min" if self.metric.removeprefix("valid/") in _SMALLER_IS_BETTER else "max"
