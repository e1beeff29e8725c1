"""The report of `seq2seq check`: measurements and diagnostics, as text of one screen and as JSON."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from seq2seq.data.report import SideReport, SplitReport
from seq2seq.preflight.corpus_quality import Quality
from seq2seq.preflight.diagnostics import Diagnostic, Severity
from seq2seq.preflight.dry_run import DryRun, MemoryEstimate, Speed
from seq2seq.training.config import Averaging, TrainerConfig

_WIDTH = 118
_LOG_BYTES = 2_500  # per log event of a dozen values: JSON, TensorBoard and the line of text
_IMAGE_BYTES = 60_000  # per attention heat map
_MIN_SHARE = 0.001  # share of unknown tokens or of bytes at which it is shown
_TIGHT = 0.8  # share of memory or disk that leaves too little for other processes, or for a low estimate


@dataclass
class PreflightReport:
    """What is known about a run before it starts; what could not be measured is None or empty.

    Attributes:
        name: name of the run.
        command: the command that trains it.
        folder: path and state of the run folder.
        environment: as in `provenance.json`, and the GPUs.
        free_disk: free bytes on the disk of the run folder.
        cached_bytes: disk space that preparing the data will still take.
        splits: the data report by split.
        qualities: quality statistics of the texts by split.
        subsampled: n if only every n-th training pair was prepared, since the training set is large; else 1.
        dry_run: memory and speed.
        diagnostics: in the order in which they were found.
    """

    name: str
    command: str
    folder: str
    environment: dict[str, Any]
    free_disk: int
    cached_bytes: int = 0
    splits: Mapping[str, SplitReport] = field(default_factory=dict)
    qualities: Mapping[str, Quality] = field(default_factory=dict)
    subsampled: int = 1
    dry_run: DryRun | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def errors(self) -> list[Diagnostic]:
        """Diagnostics that have to be fixed before training."""
        return [diagnostic for diagnostic in self.diagnostics if diagnostic.severity is Severity.error]

    def verdict(self) -> str:
        """Formats whether training can start, or what to fix first."""
        if not self.errors:
            return f"ready to train: {self.command}"
        more = len(self.errors) - 1
        others = f" (and {more} more error{'s' if more > 1 else ''})" if more else ""
        return f"not ready to train: {self.errors[0]}{others}"


@dataclass(frozen=True)
class Budget:
    """Time and disk space that a run takes in one process.

    Attributes:
        steps: number of steps that the limits of `trainer` allow; None if only time or patience ends the run.
        epochs: the same in passes over the data.
        hours: duration with evaluations and saves; None if only patience ends the run.
        disk_bytes: size of checkpoints, including the one being written, and logs.
    """

    steps: int | None
    epochs: float | None
    hours: float | None
    disk_bytes: int


def budget(trainer: TrainerConfig, speed: Speed) -> Budget:
    """Computes the time and disk space of a run of this speed."""
    epochs = trainer.max_epochs
    limits = [trainer.max_steps, None if epochs is None else math.ceil(epochs * speed.steps_per_epoch)]
    steps = min((limit for limit in limits if limit is not None), default=None)
    seconds_per_step = (
        speed.step_seconds + speed.evaluation_seconds / trainer.eval_every + speed.save_seconds / trainer.save_every
    )
    hours = None if steps is None else steps * seconds_per_step / 3600
    if trainer.max_minutes is not None:
        hours = min(trainer.max_minutes / 60, hours if hours is not None else trainer.max_minutes / 60)
    num_steps = steps if steps is not None else int(3600 * (hours or 0) / seconds_per_step)
    num_images = num_steps // trainer.eval_every * trainer.attention_images
    log_bytes = num_steps // trainer.log_every * _LOG_BYTES + num_images * _IMAGE_BYTES
    return Budget(
        steps,
        None if steps is None else steps / speed.steps_per_epoch,
        hours,
        _max_checkpoints(trainer) * speed.checkpoint_bytes + log_bytes,
    )


def _max_checkpoints(trainer: TrainerConfig) -> int:
    """Returns how many checkpoints exist at most: those kept, the one being written, the average."""
    last = trainer.average_checkpoints if trainer.average is Averaging.last else trainer.keep_last
    best = trainer.average_checkpoints if trainer.average is Averaging.best else trainer.keep_best
    return max(last, trainer.keep_last) + max(best, trainer.keep_best) + 1 + (trainer.average is not Averaging.none)


def resource_diagnostics(trainer: TrainerConfig, report: PreflightReport) -> Iterator[Diagnostic]:
    """Yields the diagnostics of memory, disk and time."""
    if report.dry_run is None:
        return
    memory, speed = report.dry_run.memory, report.dry_run.speed
    fix = f"lower trainer.batch_tokens={trainer.batch_tokens}, and raise trainer.accumulate by the same factor"
    if memory.needed_bytes > memory.free_bytes:
        yield Diagnostic(
            Severity.error,
            "trainer.batch_tokens",
            f"training needs about {_bytes(memory.needed_bytes)} of memory, {_bytes(memory.free_bytes)} are free",
            fix,
        )
    elif memory.splits:
        yield Diagnostic(
            Severity.warning,
            "trainer.batch_tokens",
            f"the largest batches do not fit into {_bytes(memory.free_bytes)} of memory and would be split",
            fix,
        )
    elif memory.needed_bytes > _TIGHT * memory.free_bytes:
        yield Diagnostic(
            Severity.warning,
            "trainer.batch_tokens",
            f"the peak memory, {_bytes(memory.needed_bytes)}, is close to the {_bytes(memory.free_bytes)} "
            "that are free",
            fix,
        )
    if speed is None:
        return
    plan = budget(trainer, speed)
    disk = plan.disk_bytes + report.cached_bytes
    if disk > _TIGHT * report.free_disk:
        yield Diagnostic(
            Severity.error if disk > report.free_disk else Severity.warning,
            "output_root",
            f"the run needs about {_bytes(disk)} of disk, {_bytes(report.free_disk)} are free",
            "free some space, set output_root to another disk, or keep fewer than "
            f"{_max_checkpoints(trainer)} checkpoints",
        )
    if plan.steps is not None and trainer.eval_every > plan.steps:
        yield Diagnostic(
            Severity.note,
            "trainer.eval_every",
            f"the run of {plan.steps:,} steps is evaluated only at its end (trainer.eval_every={trainer.eval_every:,})",
            "lower trainer.eval_every",
        )
    if plan.epochs is not None and plan.epochs < 1:
        yield Diagnostic(
            Severity.note,
            "trainer.max_steps",
            f"the run of {plan.steps:,} steps sees only {plan.epochs:.0%} of the training data",
            "raise trainer.max_steps",
        )
    if trainer.compile:
        yield Diagnostic(Severity.note, "trainer.compile", "the speed was measured without compiling")


def to_dict(report: PreflightReport, trainer: TrainerConfig) -> dict[str, Any]:
    """Returns all measurements and diagnostics as plain values, for JSON."""
    dry_run = report.dry_run
    speed = None if dry_run is None else dry_run.speed
    return {
        "name": report.name,
        "ready": not report.errors,
        "verdict": report.verdict(),
        "diagnostics": [asdict(diagnostic) for diagnostic in _by_severity(report.diagnostics)],
        "folder": report.folder,
        "free_disk": report.free_disk,
        "cached_bytes": report.cached_bytes,
        "environment": report.environment,
        "data": {name: asdict(split) for name, split in report.splits.items()},
        "quality": {name: asdict(quality) for name, quality in report.qualities.items()},
        "subsampled": report.subsampled,
        "dry_run": None if dry_run is None else asdict(dry_run),
        "budget": None if speed is None else asdict(budget(trainer, speed)),
    }


def to_text(report: PreflightReport, trainer: TrainerConfig) -> str:
    """Formats the report: measurements, diagnostics by severity, the verdict. ASCII except for names by users."""
    rows = [*_environment_rows(report), ("folder", report.folder), *_data_rows(report)]
    if report.dry_run is not None:
        rows += _dry_run_rows(report, report.dry_run, trainer)
    lines = [f"seq2seq check: {report.name}", ""]
    width = max(len(label) for label, _ in rows) + 2
    for label, line in rows:
        lines += _wrapped(f"  {label:<{width}}", line)
    verdict = "not ready to train: fix the errors above first" if report.errors else report.verdict()
    return "\n".join([*lines, "", *_diagnostic_lines(report.diagnostics), "", verdict])


def _wrapped(label: str, line: str) -> list[str]:
    """Wraps a line with a hanging indent behind its label; paths are not broken."""
    return textwrap.wrap(
        line,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _environment_rows(report: PreflightReport) -> Iterator[tuple[str, str]]:
    environment, packages = report.environment, report.environment["packages"]
    yield (
        "software",
        f"seq2seq {environment['version']}, Python {environment['python']}, torch {packages['torch']}, "
        f"{environment['platform']}",
    )
    device = environment.get("device", "not available")
    yield "device", f"{device} in {environment.get('precision', '?')}"
    for gpu in environment["gpus"]:
        yield "gpu", f"{gpu['name']}, {_bytes(gpu['free'])} of {_bytes(gpu['memory'])} free"


def _data_rows(report: PreflightReport) -> Iterator[tuple[str, str]]:
    for name, quality in report.qualities.items():
        split = report.splits.get(name)
        if split is None:
            yield name, f"{quality.pairs:,} pairs"
            continue
        kept = f"{quality.pairs:,} pairs" if report.subsampled > 1 else split.describe_kept("pairs")
        yield name, f"{kept}; source tokens: {_lengths(split.source)}; target tokens: {_lengths(split.target)}"
    if report.subsampled > 1:
        yield "", f"(lengths and vocabulary are of every {report.subsampled}th training pair)"


def _lengths(side: SideReport) -> str:
    labels = {"median": "median", "p99": "99 % up to", "longest": "longest"}
    lengths = ", ".join(f"{label} {side.lengths[key]:,}" for key, label in labels.items() if key in side.lengths)
    shares = [
        f"{count / max(side.tokens, 1):.1%} {what}"
        for count, what in ((side.unknown, "unknown"), (side.byte_pieces, "bytes"))
        if count >= _MIN_SHARE * side.tokens > 0
    ]
    cut = [f"{side.truncated:,} cut"] if side.truncated else []
    return ", ".join([lengths, *shares, *cut])


def _dry_run_rows(report: PreflightReport, dry_run: DryRun, trainer: TrainerConfig) -> Iterator[tuple[str, str]]:
    yield "model", f"{dry_run.parameters:,} parameters"
    yield "memory", _memory_line(dry_run.memory)
    speed = dry_run.speed
    if speed is None:
        return
    rate = speed.target_tokens / speed.step_seconds
    yield (
        "speed",
        f"{_seconds(speed.step_seconds)} per step, {rate:,.0f} target tokens/s ({speed.steps} steps timed); "
        f"about {_seconds(speed.evaluation_seconds)} per evaluation, {_seconds(speed.save_seconds)} per save",
    )
    plan = budget(trainer, speed)
    length = (
        f"{plan.steps:,} steps, {plan.epochs:.3g} epochs of {speed.steps_per_epoch:,} steps"
        if plan.steps
        else "no limit on steps"
    )
    yield (
        "time",
        f"about {_seconds(3600 * plan.hours)} ({length})" if plan.hours else "until trainer.patience stops the run",
    )
    needed = _bytes(plan.disk_bytes + report.cached_bytes)
    each = f"{_max_checkpoints(trainer)} checkpoints of {_bytes(speed.checkpoint_bytes)}"
    yield "disk", f"about {needed} needed ({each}, logs), {_bytes(report.free_disk)} free"


def _memory_line(memory: MemoryEstimate) -> str:
    shapes = " and ".join("{} x ({} + {})".format(*shape) for shape in memory.batches)
    how = "measured" if memory.measured else "extrapolated from a part"
    return (
        f"{_bytes(memory.needed_bytes)} at the peak, {_bytes(memory.free_bytes)} free "
        f"({how} on the largest batches: examples x (source + target tokens) = {shapes})"
    )


def _diagnostic_lines(diagnostics: Sequence[Diagnostic]) -> list[str]:
    counts = [(severity, sum(diagnostic.severity is severity for diagnostic in diagnostics)) for severity in Severity]
    shown = [f"{count} {severity.value}{'s' if count > 1 else ''}" for severity, count in counts if count]
    lines = [", ".join(shown) if shown else "no problems found"]
    for diagnostic in _by_severity(diagnostics):
        lines += _wrapped(f"  {diagnostic.severity.value:<9}", str(diagnostic))
    return lines


def _by_severity(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    return sorted(diagnostics, key=lambda diagnostic: list(Severity).index(diagnostic.severity))


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def _seconds(seconds: float) -> str:
    """Formats a duration with a fitting unit."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
