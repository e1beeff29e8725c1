"""The report of `seq2seq check`: figures and diagnostics, as text of one screen and as JSON."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from seq2seq.data.report import SideReport, SplitReport
from seq2seq.preflight.corpus_quality import Quality
from seq2seq.preflight.diagnostics import Diagnostic, Severity
from seq2seq.preflight.dry_run import DryRun, Memory, Speed
from seq2seq.training.config import Averaging, TrainerConfig

_WIDTH = 118
_LOG_BYTES = 2_500  # of one log of a dozen values: JSON, TensorBoard and the line of text
_IMAGE_BYTES = 60_000  # of an attention heat map
_WORTH = 0.001  # share of unknown tokens or bytes from which on it is told
_TIGHT = 0.8  # share of memory or disk that leaves no room for others, or for an estimate that is too low


@dataclass
class Preflight:
    """What is known of a run before it starts; figures that could not be had are None.

    Attributes:
        name: of the run.
        command: the command that trains it.
        folder: where it goes, and what is there.
        environment: as in `provenance.json`, and the GPUs.
        free_disk: bytes.
        cached_bytes: that preparing the data will still take on the disk.
        splits: the data report by split.
        qualities: of the texts by split.
        subsampled: where the training set was too large to prepare: every how many-th pair stands for it; else 1.
        dry_run: memory and speed.
        diagnostics: in the order found.
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
        """What has to be mended first."""
        return [diagnostic for diagnostic in self.diagnostics if diagnostic.severity is Severity.error]

    def verdict(self) -> str:
        """Ready, or what to do first."""
        if not self.errors:
            return f"ready to train: {self.command}"
        more = len(self.errors) - 1
        others = f" (and {more} error{'s' if more > 1 else ''} more)" if more else ""
        return f"not ready to train: {self.errors[0]}{others}"


@dataclass(frozen=True)
class Budget:
    """How long a run takes in one process.

    Attributes:
        steps: that the limits of `trainer` allow; None where only time or patience ends it.
        epochs: the same in passes over the data.
        hours: with evaluations and saves; None where only patience ends it.
        disk_bytes: of checkpoints, those being written too, and logs.
    """

    steps: int | None
    epochs: float | None
    hours: float | None
    disk_bytes: int


def budget(trainer: TrainerConfig, speed: Speed) -> Budget:
    """What a run of this speed takes."""
    limits = [trainer.max_steps, None if trainer.max_epochs is None else trainer.max_epochs * speed.steps_per_epoch]
    steps = min((limit for limit in limits if limit is not None), default=None)
    seconds_a_step = (
        speed.step_seconds + speed.evaluation_seconds / trainer.eval_every + speed.save_seconds / trainer.save_every
    )
    hours = None if steps is None else steps * seconds_a_step / 3600
    if trainer.max_minutes is not None:
        hours = min(trainer.max_minutes / 60, hours if hours is not None else trainer.max_minutes / 60)
    made = steps if steps is not None else int(3600 * (hours or 0) / seconds_a_step)
    logs = made // trainer.log_every * _LOG_BYTES + made // trainer.eval_every * trainer.attention_images * _IMAGE_BYTES
    return Budget(
        steps,
        None if steps is None else steps / speed.steps_per_epoch,
        hours,
        _checkpoints(trainer) * speed.checkpoint_bytes + logs,
    )


def _checkpoints(trainer: TrainerConfig) -> int:
    """How many there are at most: those kept, the one being written, the average."""
    last = trainer.average_checkpoints if trainer.average is Averaging.last else trainer.keep_last
    best = trainer.average_checkpoints if trainer.average is Averaging.best else trainer.keep_best
    return max(last, trainer.keep_last) + max(best, trainer.keep_best) + 1 + (trainer.average is not Averaging.none)


def of_machine(trainer: TrainerConfig, report: Preflight) -> Iterator[Diagnostic]:
    """Findings about memory, disk and time."""
    if report.dry_run is None:
        return
    memory, speed = report.dry_run.memory, report.dry_run.speed
    less = f"lower trainer.batch_tokens={trainer.batch_tokens}, and raise trainer.accumulate by as much"
    if memory.needed > memory.room:
        message = f"about {_bytes(memory.needed)} of memory are needed, {_bytes(memory.room)} are free"
        yield Diagnostic(Severity.error, "trainer.batch_tokens", message, less)
    elif memory.splits:
        message = f"the largest batches do not fit into {_bytes(memory.room)} of memory and would be computed in parts"
        yield Diagnostic(Severity.warning, "trainer.batch_tokens", message, less)
    elif memory.needed > _TIGHT * memory.room:
        message = f"the peak of memory, {_bytes(memory.needed)}, is close to the {_bytes(memory.room)} that are free"
        yield Diagnostic(Severity.warning, "trainer.batch_tokens", message, less)
    if speed is None:
        return
    plan = budget(trainer, speed)
    disk = plan.disk_bytes + report.cached_bytes
    if disk > _TIGHT * report.free_disk:
        yield Diagnostic(
            Severity.error if disk > report.free_disk else Severity.warning,
            "output_root",
            f"the run needs about {_bytes(disk)} of disk, {_bytes(report.free_disk)} are free",
            f"free some, set output_root to another disk, or keep fewer than {_checkpoints(trainer)} checkpoints",
        )
    if plan.steps is not None and trainer.eval_every > plan.steps:
        message = f"the run of {plan.steps:,} steps is evaluated at its end only (every {trainer.eval_every:,} steps)"
        yield Diagnostic(Severity.note, "trainer.eval_every", message, "lower trainer.eval_every")
    if plan.epochs is not None and plan.epochs < 1:
        message = f"the run of {plan.steps:,} steps sees only {plan.epochs:.0%} of the training data"
        yield Diagnostic(Severity.note, "trainer.max_steps", message, "raise trainer.max_steps")
    if trainer.compile:
        yield Diagnostic(Severity.note, "trainer.compile", "the steps were measured without compiling them")


def to_dict(report: Preflight, trainer: TrainerConfig) -> dict[str, Any]:
    """All figures and diagnostics as plain values, for JSON."""
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


def text(report: Preflight, trainer: TrainerConfig) -> str:
    """The report for people: figures, diagnostics by severity, the verdict. Plain ASCII but for what users named."""
    figures = [*_environment(report), ("folder", report.folder), *_data(report)]
    if report.dry_run is not None:
        figures += _dry_run_lines(report, report.dry_run, trainer)
    lines = [f"seq2seq check: {report.name}", ""]
    width = max(len(label) for label, _ in figures) + 2
    for label, line in figures:
        lines += _hanging(f"  {label:<{width}}", line)
    verdict = "not ready to train: fix the errors above first" if report.errors else report.verdict()
    return "\n".join([*lines, "", *_findings(report.diagnostics), "", verdict])


def _hanging(head: str, line: str) -> list[str]:
    """A line behind its head, wrapped below itself; paths are not torn."""
    return textwrap.wrap(
        line,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _environment(report: Preflight) -> Iterator[tuple[str, str]]:
    about, packages = report.environment, report.environment["packages"]
    yield (
        "software",
        f"seq2seq {about['version']}, Python {about['python']}, torch {packages['torch']}, {about['platform']}",
    )
    device = about.get("device", "none that was asked for")
    yield "device", f"{device} in {about.get('precision', '?')}"
    for gpu in about["gpus"]:
        yield "gpu", f"{gpu['name']}, {_bytes(gpu['free'])} of {_bytes(gpu['memory'])} free"


def _data(report: Preflight) -> Iterator[tuple[str, str]]:
    for name, quality in report.qualities.items():
        split = report.splits.get(name)
        if split is None:
            yield name, f"{quality.pairs:,} pairs"
            continue
        kept = f"{quality.pairs:,} pairs" if report.subsampled > 1 else split.kept_of("pairs")
        yield name, f"{kept}; tokens of sources: {_lengths(split.source)}; of targets: {_lengths(split.target)}"
    if report.subsampled > 1:
        yield "", f"(lengths and vocabulary are those of every {report.subsampled}th training pair)"


def _lengths(side: SideReport) -> str:
    known = {"median": "median", "p99": "99 % to", "longest": "longest"}
    lengths = ", ".join(f"{word} {side.lengths[key]:,}" for key, word in known.items() if key in side.lengths)
    odd = [
        f"{count / max(side.tokens, 1):.1%} {what}"
        for count, what in ((side.unknown, "unknown"), (side.byte_pieces, "bytes"))
        if count >= _WORTH * side.tokens > 0
    ]
    cut = [f"{side.truncated:,} cut"] if side.truncated else []
    return ", ".join([lengths, *odd, *cut])


def _dry_run_lines(report: Preflight, dry_run: DryRun, trainer: TrainerConfig) -> Iterator[tuple[str, str]]:
    yield "model", f"{dry_run.parameters:,} parameters"
    yield "memory", _memory(dry_run.memory)
    speed = dry_run.speed
    if speed is None:
        return
    rate = speed.target_tokens / speed.step_seconds
    yield (
        "speed",
        f"{_seconds(speed.step_seconds)} a step, {rate:,.0f} target tokens/s ({speed.steps} steps measured); "
        f"an evaluation about {_seconds(speed.evaluation_seconds)}, a save {_seconds(speed.save_seconds)}",
    )
    plan = budget(trainer, speed)
    length = (
        f"{plan.steps:,} steps, {plan.epochs:.3g} epochs of {speed.steps_per_epoch:,}" if plan.steps else "no limit"
    )
    yield "time", f"about {_seconds(3600 * plan.hours)} ({length})" if plan.hours else "until trainer.patience ends it"
    needed = _bytes(plan.disk_bytes + report.cached_bytes)
    each = f"{_checkpoints(trainer)} checkpoints of {_bytes(speed.checkpoint_bytes)}"
    yield "disk", f"about {needed} needed ({each}, logs), {_bytes(report.free_disk)} free"


def _memory(memory: Memory) -> str:
    shapes = " and ".join("{} x ({} + {})".format(*shape) for shape in memory.batches)
    how = "measured" if memory.measured else "worked out from a part"
    return (
        f"{_bytes(memory.needed)} at the peak, {_bytes(memory.room)} free "
        f"({how}: the largest batches, {shapes} tokens of sources and targets)"
    )


def _findings(diagnostics: Sequence[Diagnostic]) -> list[str]:
    counts = [(severity, sum(diagnostic.severity is severity for diagnostic in diagnostics)) for severity in Severity]
    shown = [f"{count} {severity.value}{'s' if count > 1 else ''}" for severity, count in counts if count]
    lines = [", ".join(shown) if shown else "nothing amiss was found"]
    for diagnostic in _by_severity(diagnostics):
        lines += _hanging(f"  {diagnostic.severity.value:<9}", str(diagnostic))
    return lines


def _by_severity(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    return sorted(diagnostics, key=lambda diagnostic: list(Severity).index(diagnostic.severity))


def _bytes(count: float) -> str:
    unit = "MiB" if count < 2**30 else "GiB"
    return f"{count / (2**20 if unit == 'MiB' else 2**30):,.1f} {unit}"


def _seconds(seconds: float) -> str:
    """A time with the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
