"""`seq2seq check`: checks in seconds whether `train` with the same keys would work."""

import json
import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from seq2seq.config import saved
from seq2seq.config.commands import CheckFormat
from seq2seq.config.given import unused_keys
from seq2seq.config.oddities import odd_keys
from seq2seq.config.schema import Config
from seq2seq.data.corpus import CorpusConfig, DataConfig, read_examples, resolve_root
from seq2seq.data.prepare import PreparedData, file_fingerprints, is_prepared, prepare
from seq2seq.data.unreadable import collector
from seq2seq.errors import TrainingError, UserError
from seq2seq.pipeline.base_run import base_tokenizers, with_base_tokenizer
from seq2seq.pipeline.existing_run import (
    objective_if_complete,
    require_replaceable,
    require_same_config,
    require_same_content,
)
from seq2seq.preflight import machine
from seq2seq.preflight.corpus_quality import Corpus, measure, survey
from seq2seq.preflight.diagnostics import Diagnostic, Severity, quality_diagnostics, split_diagnostics
from seq2seq.preflight.dry_run import dry_run
from seq2seq.preflight.report import PreflightReport, resource_diagnostics, to_dict, to_text
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.runs.provenance import provenance
from seq2seq.system.config import Device, Precision
from seq2seq.system.console import console_log
from seq2seq.system.device import build_runtime, set_threads
from seq2seq.tokenizers.pair import Tokenizers

logger = logging.getLogger("seq2seq")

# A training set of more pairs than this, not prepared yet, is subsampled to about so many: a minute of work.
_MAX_UNPREPARED_PAIRS, _SUBSAMPLED_PAIRS = 200_000, 100_000


def check(config: Config, folder: RunFolder, *, command: str, format: CheckFormat, given: Collection[str] = ()) -> None:
    """Prints the report.

    Args:
        config: Configuration of the run.
        folder: The run's folder.
        command: The command that trains the run.
        format: Format of the report.
        given: Keys given on the command line: those without effect, or at odds with others, are told.

    Raises:
        UserError: If training could not start, or would make no sense.
    """
    with console_log(), tempfile.TemporaryDirectory(prefix="seq2seq-") as scratch:
        report = _inspect(config, folder, command=command, scratch=Path(scratch), given=given)
    if format is CheckFormat.json:
        print(json.dumps(to_dict(report, config.trainer), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(to_text(report, config.trainer))
    if report.errors:
        raise UserError(report.verdict())


def _inspect(
    config: Config, folder: RunFolder, *, command: str, scratch: Path, given: Collection[str]
) -> PreflightReport:
    """Checks everything that `train` depends on; a fault becomes a diagnostic, and the other checks still run.

    ``scratch`` is an empty folder for temporary files.
    """
    set_threads(config.trainer.threads)
    diagnostics: list[Diagnostic] = []
    report = PreflightReport(
        name=str(config.name),
        command=command,
        folder=str(folder.path),
        environment=_environment(config, diagnostics),
        free_disk=machine.free_disk(folder.path),
        diagnostics=diagnostics,
    )
    diagnostics += _unwritable_folders(config, folder)
    unused = {key: message for key, (_, message) in unused_keys(config).items() if key in given}
    for severity, messages in ((Severity.error, unused), (Severity.warning, odd_keys(config, given))):
        diagnostics += [Diagnostic(severity, key, message) for key, message in messages.items()]
    if config.trainer.overfit_batches is not None:
        message = f"training sees no more than the first {config.trainer.overfit_batches} micro-batches, in each epoch"
        fix = "set it to null, unless you are debugging"
        diagnostics.append(Diagnostic(Severity.note, "trainer.overfit_batches", message, fix))
    resumes, tokenizers = False, None
    with _reported(diagnostics, "trainer.init_from"):
        config = with_base_tokenizer(config, folder, given=given)
        tokenizers = base_tokenizers(config, folder)
    with _reported(diagnostics, "name"):
        state, resumes = folder_state(config, folder)
        report.folder = f"{folder.path}: {state}"
    corpora = _read_corpora(config, diagnostics)
    if "train" in corpora and len(corpora["train"]):
        report.qualities = measure(corpora)
        diagnostics += quality_diagnostics(report.qualities, config.data)
    if report.errors:
        return report  # a tokenizer and a dry run would tell nothing more
    with _reported(diagnostics, "data"):
        prepared = _prepare(config, report, scratch, tokenizers=tokenizers)
        report.splits = prepared.reports
        diagnostics += split_diagnostics(report.splits)
    if report.errors:
        return report
    with _reported(diagnostics, "name"):
        resumes = resumes and _has_checkpoint(config, folder, prepared)
    with _reported(diagnostics, "trainer.batch_tokens"), _reported(diagnostics, "model", (UserError,)):
        logger.info("measuring a few training steps")
        device = build_runtime(config.trainer.device, config.trainer.precision).device
        free_bytes = machine.available_memory(device)
        report.dry_run = dry_run(
            config,
            prepared,
            free_bytes=free_bytes,
            subsampling=report.subsampled if config.trainer.overfit_batches is None else 1,
            load_pretrained=not resumes,
        )
        diagnostics += resource_diagnostics(config.trainer, report)
    return report


@contextmanager
def _reported(
    diagnostics: list[Diagnostic], key: str, kinds: tuple[type[Exception], ...] = (UserError, TrainingError)
) -> Iterator[None]:
    """Turns an error of these kinds into a diagnostic of the key."""
    try:
        yield
    except kinds as error:
        diagnostics.append(Diagnostic(Severity.error, key, str(error)))


def _unwritable_folders(config: Config, folder: RunFolder) -> Iterator[Diagnostic]:
    for key, path in {"output_root": folder.path, "cache_root": Path(config.cache_root)}.items():
        reason = machine.write_error(path)
        if reason is not None:
            fix = f"set {key} to a writable folder"
            yield Diagnostic(Severity.error, key, f"cannot be written to: {reason}", fix)


def _environment(config: Config, diagnostics: list[Diagnostic]) -> dict[str, Any]:
    runtime = build_runtime(Device.cpu, Precision.fp32)
    with _reported(diagnostics, "trainer.device"):
        runtime = build_runtime(config.trainer.device, config.trainer.precision)
    environment = provenance({}, runtime, world_size=1)
    diagnostics += [
        Diagnostic(Severity.error, "environment", f"the package {name} is not installed", "install seq2seq again")
        for name, version in environment["packages"].items()
        if version is None
    ]
    return {**environment, "gpus": machine.gpus()}


def folder_state(config: Config, folder: RunFolder) -> tuple[str, bool]:
    """Describes the run folder and what `train` would do with it, and returns whether it would resume a run there."""
    folder.inspect()
    if config.overwrite:
        require_replaceable(config, folder)
        if folder.config.exists():
            return "holds a run, which overwrite=true would replace at the first checkpoint of the new one", False
    if not folder.holds_run():
        return "new", False
    require_same_config(config, folder)
    if objective_if_complete(config, folder) is not None:
        return "holds this run, complete: there is nothing to train", False
    return "holds this run, not complete: training would resume it", True


def _has_checkpoint(config: Config, folder: RunFolder, prepared: PreparedData) -> bool:
    """Returns whether there is a checkpoint to resume from.

    Raises:
        UserError: If there are checkpoints, but no valid one, or none of this data and configuration.
    """
    checkpoint = CheckpointStore(folder.checkpoints).latest_valid()
    if checkpoint is None:
        return False
    require_same_content(checkpoint, prepared.fingerprints | saved.fingerprints(config), folder)
    return True


def _read_corpora(config: Config, diagnostics: list[Diagnostic]) -> dict[str, Corpus]:
    """Reads all corpora; an error becomes a diagnostic."""
    data, root = config.data, resolve_root(config.data.root)
    corpora = {}
    for name, section in data.corpora().items():
        with _reported(diagnostics, f"data.{name}"):
            unreadable = collector(data.on_error, name)
            examples = read_examples(section, root, f"data.{name}", errors=data.encoding_errors, unreadable=unreadable)
            corpora[name] = survey(examples)
            if unreadable is not None and unreadable.count:
                message = f"{unreadable.count:,} records cannot be read and are left out, such as {unreadable.named[0]}"
                diagnostics.append(Diagnostic(Severity.warning, f"data.{name}", message, "repair them"))
    return corpora


def _prepare(config: Config, report: PreflightReport, scratch: Path, *, tokenizers: Tokenizers | None) -> PreparedData:
    """Prepares the data as training does, which then finds it in the cache; subsamples a large training set."""
    data, cache = config.data, Path(config.cache_root)
    num_pairs = report.qualities["train"].pairs
    settings: dict[str, Any] = {"seed": config.seed, "tokenizers": tokenizers}
    if num_pairs > _MAX_UNPREPARED_PAIRS and not is_prepared(data, config.tokenizer, cache_root=cache, **settings):
        report.subsampled = -(-num_pairs // _SUBSAMPLED_PAIRS)
        data, cache = subsample(data, scratch, every=report.subsampled), scratch / "cache"
        note = (
            f"{num_pairs:,} pairs are not prepared yet: lengths and speed are estimated from every "
            f"{report.subsampled}th of them"
        )
        report.diagnostics.append(
            Diagnostic(Severity.note, "data.train", note, "run `seq2seq prepare` first for exact numbers")
        )
    prepared = prepare(data, config.tokenizer, cache_root=cache, log=logger.info, **settings)
    prepared.verify()
    if report.subsampled > 1:
        # The run's own fingerprints: those of the whole files. Without preparing them its tokenizer is unknown.
        prepared = replace(prepared, fingerprints=file_fingerprints(config.data, Path(config.cache_root)))
        stored = sum(path.stat().st_size for path in prepared.train.folder.iterdir())
        report.cached_bytes = stored * report.subsampled
    return prepared


def subsample(data: DataConfig, folder: Path, *, every: int) -> DataConfig:
    """Writes every n-th training pair as JSON Lines and returns the same data section with that training set.

    Args:
        data: The section of the whole data.
        folder: Receives the file.
        every: n.
    """
    path = folder.absolute() / "train.jsonl"
    root, errors, unreadable = resolve_root(data.root), data.encoding_errors, collector(data.on_error, "train")
    examples = read_examples(data.train, root, "data.train", errors=errors, unreadable=unreadable)
    with path.open("w", encoding="utf-8") as file:
        for example in islice(examples, 0, None, every):
            file.write(json.dumps({"source": example.source, "target": example.target}) + "\n")
    return replace(data, train=CorpusConfig(path=str(path)))
