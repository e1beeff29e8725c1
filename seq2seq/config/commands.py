"""The configuration of each command: that of a run with further keys, or its own keys alone."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from seq2seq.config import rules
from seq2seq.config.schema import Config
from seq2seq.data.corpus import DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MAX_RESAMPLES, MetricsConfig


class CheckFormat(str, Enum):
    """Format of the report of `check`."""

    text = "text"
    json = "json"


@dataclass
class CheckConfig(Config):
    """Configuration of `check`: that of `train`, and the format of the report.

    Attributes:
        format: ``text`` to read, ``json`` for one object with all values.
    """

    format: CheckFormat = CheckFormat.text


def as_list(value: object) -> list[str]:
    """Returns the value of a key that takes one path, a list of paths, or null, as a list."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def named_tests(data: DataConfig, given: Collection[str]) -> list[str]:
    """Returns the test sets of a data section that keys given on the command line name."""
    named = {key.split(".")[2] for key in given if key.startswith("data.test.")}
    return [name for name in data.test if name in named]


@dataclass
class EvaluateConfig(Config):
    """Configuration of `evaluate`: that of a run, and which of its checkpoints to score.

    Attributes:
        run: Run folder, or a list of them for an ensemble.
        checkpoint: ``best``, ``last``, ``average``, a step, or a path.
    """

    run: Any = "???"
    checkpoint: str = "best"


class GenerateFormat(str, Enum):
    """Format of the output of `generate`."""

    text = "text"
    jsonl = "jsonl"


@dataclass
class GenerateConfig(EvaluateConfig):
    """Configuration of `generate`: that of a run, and its input and output.

    Attributes:
        input: File with one source per line (also ``.gz``), or ``.jsonl`` with the run's source field; null reads
            standard input.
        output: File; null writes standard output.
        format: ``text`` writes the best output per line; ``jsonl`` one object per line with the
            n best outputs and their scores.
        stream: Whether each line is answered as it comes, for programs that write a line and wait for its output;
            otherwise lines are read in blocks, which is faster.
        attention: Whether JSONL has each output token's attention over the source tokens and, where the model
            copies, the probability that the token was copied.
        alignments: Whether JSONL has the index of the source token that each output token attended to most.
    """

    input: str | None = None
    output: str | None = None
    format: GenerateFormat = GenerateFormat.text
    stream: bool = False
    attention: bool = False
    alignments: bool = False

    def __post_init__(self) -> None:
        """Checks the output format."""
        super().__post_init__()
        if self.stream and (self.input or self.output):
            raise UserError("stream=true answers standard input on standard output: leave out input= and output=")
        if (self.attention or self.alignments) and self.format is GenerateFormat.text:
            raise UserError("attention=true and alignments=true need format=jsonl")


class AverageOf(str, Enum):
    """Which checkpoints to average."""

    last = "last"
    best = "best"


@dataclass
class AverageConfig:
    """Configuration of `average`.

    Attributes:
        run: Run folder.
        which: The ``last`` or the ``best`` checkpoints among those that are kept.
        count: How many; null averages all.
    """

    run: str = "???"
    which: AverageOf = AverageOf.last
    count: int | None = None


class TableFormat(str, Enum):
    """Format of a table."""

    markdown = "markdown"
    json = "json"


@dataclass
class ReportConfig:
    """Configuration of `report`.

    Attributes:
        folder: A sweep's folder, or any folder that contains run folders.
        format: ``markdown`` or ``json``.
    """

    folder: str = "???"
    format: TableFormat = TableFormat.markdown


@dataclass
class CompareConfig:
    """Configuration of `compare`: two or more runs, or files of outputs, on the same references.

    Attributes:
        run: Run folder of the baseline.
        hyp: Instead of `run`: file of the baseline's outputs, one per line, or `.jsonl` as `generate` writes it.
        other: What to compare with the baseline: a run folder, a file, or a list of them.
        ref: With `hyp`: file of references, one per line; a list of such files; or one `.jsonl`.
        source: With `hyp`: file of sources, one per line, to show with the outputs.
        source_field: With `ref=X.jsonl`: the field of the source, to show.
        target_field: With `ref=X.jsonl`: the field of the reference; null is `target`.
        references_field: With `ref=X.jsonl`: a field with further references.
        seed: Seed of both tests; 12345 is also sacrebleu's.
        resamples: Number of resamples of the paired bootstrap, for intervals and p-values.
        trials: Number of trials of approximate randomization.
        examples: How many of the examples that differ most to show, in either direction.
        format: `markdown` or `json`.
        data: By default that of the first run. With files, only `target_language` and `encoding_errors` are used.
        metrics: By default that of the first run; `resamples` replaces `metrics.bootstrap`.
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
        ranges = {"seed": (0, 2**63 - 1), "resamples": (2, MAX_RESAMPLES), "trials": (1, MAX_RESAMPLES)}
        for key, (minimum, maximum) in (ranges | {"examples": (0, rules.MAX_INTEGER)}).items():
            if not minimum <= getattr(self, key) <= maximum:
                raise UserError(f"{key}={getattr(self, key)}: must be from {minimum:,} to {maximum:,}")
        if not self.metrics.names:
            raise UserError("metrics.names is empty: name the metrics to compare, such as metrics.names=[bleu,chrf]")
