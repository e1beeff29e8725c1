"""`seq2seq check`: what `train` would meet, looked at in seconds."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from seq2seq.config import saved
from seq2seq.config.commands import ReportFormat
from seq2seq.config.schema import Config
from seq2seq.data.corpus import read_examples, resolve_root
from seq2seq.data.prepare import Prepared, file_fingerprints, is_prepared, prepare
from seq2seq.errors import TrainingError, UserError
from seq2seq.pipeline.prepare import base_tokenizers
from seq2seq.pipeline.train import objective_if_complete, require_same_content
from seq2seq.preflight import diagnostics as diagnostics
from seq2seq.preflight import machine
from seq2seq.preflight import report as preflight
from seq2seq.preflight.corpus_quality import Corpus, measure, survey
from seq2seq.preflight.diagnostics import Diagnostic, Severity
from seq2seq.preflight.dry_run import dry_run
from seq2seq.preflight.report import Preflight
from seq2seq.preflight.subsample import subsampled
from seq2seq.runs.checkpoint import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.runs.provenance import provenance
from seq2seq.system.config import Device, Precision
from seq2seq.system.console import console_log
from seq2seq.system.device import build_runtime, set_threads
from seq2seq.tokenizers.pair import Tokenizers

LOGGER = logging.getLogger("seq2seq")

# More training pairs than this, if they are not prepared yet, are subsampled to about so many: a minute of work.
_LARGE, _ENOUGH = 200_000, 100_000


def check(config: Config, folder: RunFolder, *, command: str, format: ReportFormat) -> None:
    """Prints the report.

    Args:
        config: Of the run.
        folder: Where the run would go.
        command: That trains it.
        format: Of the report.

    Raises:
        UserError: If training could not start, or would make no sense.
    """
    with console_log(), tempfile.TemporaryDirectory(prefix="seq2seq-") as scratch:
        report = _look(config, folder, command=command, scratch=Path(scratch))
    if format is ReportFormat.json:
        print(json.dumps(preflight.to_dict(report, config.trainer), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(preflight.text(report, config.trainer))
    if report.errors:
        raise UserError(report.verdict())


def _look(config: Config, folder: RunFolder, *, command: str, scratch: Path) -> Preflight:
    """Looks at all that `train` would meet; what is wrong becomes a diagnostic, and the rest is looked at all the same.

    ``scratch`` is an empty folder for files that are not wanted afterwards.
    """
    set_threads(config.trainer.threads)
    found: list[Diagnostic] = []
    report = Preflight(
        name=str(config.name),
        command=command,
        folder=str(folder.path),
        environment=_environment(config, found),
        free_disk=machine.free_disk(folder.path),
        diagnostics=found,
    )
    found += _of_places(config, folder)
    found += [Diagnostic(Severity.warning, line.partition("=")[0], line) for line in saved.unused_keys(config)]
    resumes, tokenizers = False, None
    with _reported(found, "name"):
        state, resumes = folder_state(config, folder)
        report.folder = f"{folder.path}: {state}"
    with _reported(found, "trainer.init_from"):
        tokenizers = base_tokenizers(config)
    corpora = _corpora(config, found)
    if "train" in corpora and len(corpora["train"]):
        report.qualities = measure(corpora)
        found += diagnostics.of_quality(report.qualities, config.data)
    if report.errors:
        return report  # neither tokenizers nor steps would say anything more
    with _reported(found, "data"):
        prepared = _prepare(config, report, scratch, tokenizers=tokenizers)
        report.splits = prepared.report.splits
        found += diagnostics.of_splits(report.splits)
    if report.errors:
        return report
    with _reported(found, "name"):
        resumes = resumes and _has_checkpoint(config, folder, prepared)
    with _reported(found, "trainer.batch_tokens"), _reported(found, "model", (UserError,)):
        LOGGER.info("Measuring a few steps.")
        device = build_runtime(config.trainer.device, config.trainer.precision).device
        room = machine.available_memory(device)
        report.dry_run = dry_run(config, prepared, room=room, subsampled=report.subsampled, starts=not resumes)
        found += preflight.of_machine(config.trainer, report)
    return report


@contextmanager
def _reported(
    found: list[Diagnostic], key: str, kinds: tuple[type[Exception], ...] = (UserError, TrainingError)
) -> Iterator[None]:
    """Turns an error that has a message for the user into a diagnostic."""
    try:
        yield
    except kinds as error:
        found.append(Diagnostic(Severity.error, key, str(error)))


def _of_places(config: Config, folder: RunFolder) -> Iterator[Diagnostic]:
    for key, path in {"output_root": folder.path, "cache_root": Path(config.cache_root)}.items():
        reason = machine.why_not_writable(path)
        if reason is not None:
            fix = f"set {key} to a folder that can"
            yield Diagnostic(Severity.error, key, f"cannot be written to: {reason}", fix)


def _environment(config: Config, found: list[Diagnostic]) -> dict[str, Any]:
    runtime = build_runtime(Device.cpu, Precision.fp32)
    with _reported(found, "trainer.device"):
        runtime = build_runtime(config.trainer.device, config.trainer.precision)
    about = provenance({}, runtime, world_size=1)
    found += [
        Diagnostic(Severity.error, "environment", f"the package {name} is not installed", "install seq2seq anew")
        for name, version in about["packages"].items()
        if version is None
    ]
    return {**about, "gpus": machine.gpus()}


def folder_state(config: Config, folder: RunFolder) -> tuple[str, bool]:
    """What is in the run folder and what `train` would do with it, in words; and whether it would go on with it."""
    folder.inspect()
    if config.overwrite and folder.entries_to_clear():
        return "holds a run, which overwrite=true would delete", False
    if not folder.config.exists():
        return "new", False
    if objective_if_complete(config, folder) is not None:
        return "holds this run, complete: there is nothing to train", False
    return "holds this run, not complete: training would resume it", True


def _has_checkpoint(config: Config, folder: RunFolder, prepared: Prepared) -> bool:
    """Whether there is a checkpoint to go on from; a UserError if there are some and none will do."""
    checkpoint = CheckpointStore(folder.checkpoints).latest_valid()
    if checkpoint is None:
        return False
    require_same_content(checkpoint, prepared.fingerprints | saved.fingerprints(config), folder)
    return True


def _corpora(config: Config, found: list[Diagnostic]) -> dict[str, Corpus]:
    """All corpora that can be read."""
    data, root = config.data, resolve_root(config.data.root)
    corpora = {}
    sections = {"train": data.train, "valid": data.valid, **{f"test.{name}": test for name, test in data.test.items()}}
    for name, section in sections.items():
        with _reported(found, f"data.{name}"):
            corpora[name] = survey(read_examples(section, root, f"data.{name}", errors=data.encoding_errors))
    return corpora


def _prepare(config: Config, report: Preflight, scratch: Path, *, tokenizers: Tokenizers | None) -> Prepared:
    """The data prepared as for training, which finds it in the cache then; a large training set subsampled."""
    data, cache = config.data, Path(config.cache_root)
    pairs = report.qualities["train"].pairs
    settings: dict[str, Any] = {"seed": config.seed, "tokenizers": tokenizers}
    if pairs > _LARGE and not is_prepared(data, config.tokenizer, cache_root=cache, **settings):
        report.subsampled = -(-pairs // _ENOUGH)
        data, cache = subsampled(data, scratch, every=report.subsampled), scratch / "cache"
        note = f"{pairs:,} pairs are not prepared yet: every {report.subsampled}th stands for all in lengths and speed"
        report.diagnostics.append(
            Diagnostic(Severity.note, "data.train", note, "`seq2seq prepare` first gives exact figures")
        )
    prepared = prepare(data, config.tokenizer, cache_root=cache, log=LOGGER.info, **settings)
    prepared.verify()
    if report.subsampled > 1:
        # What the run would be bound to: the whole files. Its tokenizer is not known without preparing them.
        prepared = replace(prepared, fingerprints=file_fingerprints(config.data, Path(config.cache_root)))
        stored = sum(path.stat().st_size for path in prepared.train.folder.iterdir())
        report.cached_bytes = stored * report.subsampled
    return prepared
