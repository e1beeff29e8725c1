"""What each command reads: the configuration of a run and keys of its own, or only these."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from seq2seq.config import rules as config_rules
from seq2seq.config.schema import Config
from seq2seq.data.corpus import DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MOST_RESAMPLES, MetricsConfig


class ReportFormat(str, Enum):
    """How the report is written."""

    text = "text"
    json = "json"


@dataclass
class CheckConfig(Config):
    """What `check` reads: what `train` does, and how to report.

    Attributes:
        format: ``text`` for people, ``json`` for one object with all figures.
    """

    format: ReportFormat = ReportFormat.text


@dataclass
class EvaluateConfig(Config):
    """What `evaluate` reads: a run's configuration and which of its checkpoints to score.

    Attributes:
        run: Run folder, or a list of them for an ensemble.
        checkpoint: ``best``, ``last``, ``average``, a step, or a path.
    """

    run: Any = "???"
    checkpoint: str = "best"


class Format(str, Enum):
    """What `generate` writes for each input line."""

    text = "text"
    jsonl = "jsonl"


@dataclass
class GenerateConfig(EvaluateConfig):
    """What `generate` reads: a run's configuration, and where text comes from and goes.

    Attributes:
        input: File of one source a line, ``.gz`` too, or ``.jsonl`` with the run's source field; null: standard input.
        output: File; null is standard output.
        format: ``text`` is the best output a line; ``jsonl`` an object a line with the n best and their scores.
        attention: Whether JSONL carries each output token's attention over the source tokens and, where the model
            copies, the probability that the token was copied.
        alignments: Whether JSONL carries the source token that each output token attended to most.
    """

    input: str | None = None
    output: str | None = None
    format: Format = Format.text
    attention: bool = False
    alignments: bool = False

    def __post_init__(self) -> None:
        """Checks what is written."""
        super().__post_init__()
        if (self.attention or self.alignments) and self.format is Format.text:
            raise UserError("attention=true and alignments=true go with format=jsonl")


class AverageOf(str, Enum):
    """Which checkpoints are averaged."""

    last = "last"
    best = "best"


@dataclass
class AverageConfig:
    """What `average` reads.

    Attributes:
        run: Run folder.
        which: ``last`` or ``best`` checkpoints that are still kept.
        count: How many of them; null is all.
    """

    run: str = "???"
    which: AverageOf = AverageOf.last
    count: int | None = None


class TableFormat(str, Enum):
    """How a table is written."""

    markdown = "markdown"
    json = "json"


@dataclass
class ReportConfig:
    """What `report` reads.

    Attributes:
        folder: A sweep's folder, or any folder with run folders in it.
        format: ``markdown`` or ``json``.
    """

    folder: str = "???"
    format: TableFormat = TableFormat.markdown


@dataclass
class CompareConfig:
    """What `compare` reads: two or more runs, or files of outputs, on the same references.

    Attributes:
        run: Run folder of the baseline.
        hyp: Instead of `run`: file of the baseline's outputs, one a line, or `.jsonl` as `generate` writes it.
        other: What is compared with the baseline: a run folder, or a file; or a list of them.
        ref: With `hyp`: file of references, one a line; a list of such files; or one `.jsonl`.
        source: With `hyp`: file of sources, one a line, to be shown with outputs.
        source_field: With `ref=X.jsonl`: the field of the source, to be shown.
        target_field: With `ref=X.jsonl`: the field of the reference, default `target`.
        references_field: With `ref=X.jsonl`: a field with further references.
        seed: Of both tests; sacrebleu's own is 12345.
        resamples: Of the paired bootstrap, for intervals and p-values.
        trials: Of approximate randomization.
        examples: How many of those that differ most are shown, in either direction.
        format: `markdown` or `json`.
        data: Of the first run. `target_language` and `encoding_errors` are for files too.
        metrics: Of the first run. `resamples` stands for `metrics.bootstrap`.
    """

    run: str | None = None
    hyp: str | None = None
    other: Any = None
    ref: Any = None
    source: str | None = None
    source_field: str | None = None
    target_field: str | None = None
    references_field: str | None = None
    seed: int = 12345
    resamples: int = 1000
    trials: int = 10000
    examples: int = 5
    format: TableFormat = TableFormat.markdown
    data: DataConfig = field(default_factory=DataConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        """Checks ranges."""
        ranges = {"seed": (0, 2**63 - 1), "resamples": (2, MOST_RESAMPLES), "trials": (1, MOST_RESAMPLES)}
        for key, (least, most) in (ranges | {"examples": (0, config_rules.LARGEST)}).items():
            if not least <= getattr(self, key) <= most:
                raise UserError(f"{key}={getattr(self, key)}: must be from {least:,} to {most:,}")
        if not self.metrics.names:
            raise UserError("metrics.names is empty: name the metrics to compare by, such as metrics.names=[bleu,chrf]")
