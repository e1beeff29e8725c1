"""`seq2seq compare`: runs, or files of outputs, on the same references."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig, TableFormat
from seq2seq.data.corpus import (
    CorpusConfig,
    DataConfig,
    Example,
    is_jsonl,
    read_examples,
    read_records,
    resolve_root,
    text_field,
)
from seq2seq.data.text import check_readable, read_lines
from seq2seq.errors import UserError
from seq2seq.metrics.significance import Sampling
from seq2seq.runs import comparison
from seq2seq.runs.comparison import Comparison, System, TestSet
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.console import console_log

LOGGER = logging.getLogger("seq2seq")

_OUTPUT_FIELD = "text"  # what `generate format=jsonl` calls the best output
_FIELDS = ("source_field", "target_field", "references_field")
_SAMPLING_FIELDS = ("bs:", "ar:", "seed:")  # of a signature; two with the same other fields score alike

Compared = Iterator[tuple[TestSet, list[System]]]


def compare(settings: CompareConfig, *, given: Sequence[str]) -> None:
    """Prints scores, tests, and the examples that differ most.

    Args:
        settings: what is compared, and how; with ``run=``, `data` and `metrics` are the run's.
        given: the keys that the command line sets.

    Raises:
        UserError: if something cannot be compared, or a key has no effect.
    """
    others = _listed(settings.other)
    _check(settings, others, given)
    with console_log():
        compared = _runs(settings, others, given) if settings.run is not None else _files(settings, others)
        results = [
            comparison.compare(
                test,
                systems,
                settings.metrics,
                target_language=settings.data.target_language,
                sampling=Sampling(settings.resamples, settings.trials, settings.seed),
                examples=settings.examples,
            )
            for test, systems in compared
        ]
        if settings.run is not None:
            _warn_of_other_scores([settings.run, *others], results)
    if settings.format is TableFormat.json:
        print(
            json.dumps({one.test_set: one.to_dict() for one in results}, indent=2, ensure_ascii=False, allow_nan=False)
        )
    else:
        print("\n\n".join(comparison.markdown(one) for one in results))


def _listed(value: object) -> list[str]:
    """One path, or several, of a key that takes either."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _check(settings: CompareConfig, others: Sequence[str], given: Sequence[str]) -> None:
    """Raises a UserError unless it is plain what is compared with what."""
    if (settings.run is None) == (settings.hyp is None):
        raise UserError(
            "compare takes run=DIR other=DIR, or hyp=FILE other=FILE ref=FILE: "
            + ("give one of run= and hyp=" if settings.run is None else "run= and hyp= are both set")
        )
    if not others:
        raise UserError(
            "other= is missing: name what is compared with "
            + (f"run={settings.run}" if settings.hyp is None else f"hyp={settings.hyp}")
        )
    if settings.hyp is not None and not _listed(settings.ref):
        raise UserError(f"ref= is missing: name the file of references that hyp={settings.hyp} is scored against")
    if settings.run is None:
        unread = [key for key in given if key.startswith(("data.root", "data.test."))]
        reason = "goes with run=; files are found from the current folder"
    else:
        unread = [key for key in ("ref", "source", *_FIELDS) if getattr(settings, key) is not None]
        reason = "goes with hyp=; runs are scored against the references of their test sets"
    if unread:
        raise UserError(f"{unread[0]} {reason}")
    if "metrics.bootstrap" in given:
        raise UserError("metrics.bootstrap has no effect here: resamples=N is the number of bootstrap resamples")


def _names(paths: Sequence[str]) -> list[str]:
    """What tables call the systems: the last part of each path, or all of it where that is not enough."""
    short = [Path(path).absolute().name for path in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    return [name if name not in names[:i] else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _runs(settings: CompareConfig, others: Sequence[str], given: Sequence[str]) -> Compared:
    """Each test set of the first run with the outputs of all."""
    paths = [("run", str(settings.run)), *(("other", path) for path in others)]
    labels = [f"{key}={path}" for key, path in paths]
    folders = [_complete_run(path, key) for key, path in paths]
    data = [settings.data, *(_data_of(folder, settings.data, given) for folder in folders[1:])]
    names = _names([path for _, path in paths])
    named = _test_sets(given)
    test_sets = [name for name in settings.data.test if name in named] or list(settings.data.test)
    if not test_sets:
        raise UserError(f"run={settings.run} has no test set to compare on")
    for test_set in test_sets:
        corpora = [_read(section, test_set, label) for section, label in zip(data, labels, strict=True)]
        for corpus, label in zip(corpora[1:], labels[1:], strict=True):
            _check_references(test_set, {labels[0]: corpora[0], label: corpus})
        systems = [
            System(name, *_generations(folder, test_set, label))
            for name, folder, label in zip(names, folders, labels, strict=True)
        ]
        references = [example.references for example in corpora[0]]
        yield (
            TestSet(test_set, references, [example.source for example in corpora[0]], f"data.test.{test_set}"),
            systems,
        )


def _complete_run(path: str, key: str) -> RunFolder:
    folder = require_run(path, key=key)
    if folder.read_results() is None:
        raise UserError(
            f"{key}={path} is not complete: run its `seq2seq train` command again to resume it; or compare "
            "files of outputs with hyp=, other= and ref="
        )
    return folder


def _data_of(folder: RunFolder, first: DataConfig, given: Sequence[str]) -> DataConfig:
    """A run's own data, with what the command line gives: that holds for all runs."""
    data = saved.load(folder.config).data
    if "data.root" in given:
        data = replace(data, root=first.root)
    return replace(data, test=data.test | {name: first.test[name] for name in _test_sets(given) & first.test.keys()})


def _test_sets(given: Sequence[str]) -> set[str]:
    """The test sets that the command line names."""
    return {key.split(".")[2] for key in given if key.startswith("data.test.")}


def _read(data: DataConfig, test_set: str, label: str) -> list[Example]:
    """The examples of a run's test set."""
    if test_set not in data.test:
        raise UserError(
            f"{label} has no test set {test_set} (it has {', '.join(data.test) or 'none'}): "
            f"~data.test.{test_set} leaves it out of the comparison"
        )
    try:
        root = resolve_root(data.root)
        return list(read_examples(data.test[test_set], root, f"data.test.{test_set}", errors=data.encoding_errors))
    except UserError as error:
        raise UserError(f"{label}: {error}") from error


def _check_references(test_set: str, corpora: dict[str, list[Example]]) -> None:
    """Raises a UserError unless two runs were scored against the same references."""
    (first, ours), (second, theirs) = corpora.items()
    if len(ours) != len(theirs):
        found = f"{len(ours):,} examples against {len(theirs):,}"
    else:
        pairs = enumerate(zip(ours, theirs, strict=True), start=1)
        place = next((i for i, (a, b) in pairs if a.references != b.references), None)
        if place is None:
            return
        found = f"in example {place} {ours[place - 1].references[0]!r} against {theirs[place - 1].references[0]!r}"
    raise UserError(
        f"{first} and {second} have different references in test set {test_set}: {found}. Scores on different "
        f"references cannot be compared; ~data.test.{test_set} leaves the set out"
    )


def _generations(folder: RunFolder, test_set: str, label: str) -> tuple[list[str], str]:
    """A run's outputs and where they are."""
    path = folder.generations / f"{test_set}.txt"
    if not path.is_file():
        raise UserError(
            f"{label} has no outputs for test set {test_set}: there is no {path}. `seq2seq evaluate run={folder.path}` "
            f"writes them to {folder.path}/evaluations/best, which hyp=, other= and ref= compare; "
            f"~data.test.{test_set} leaves the set out"
        )
    records = path.with_suffix(".jsonl")  # only there where outputs hold line breaks
    return (list(_texts(records)), str(records)) if records.is_file() else (list(read_lines(path)), str(path))


def _warn_of_other_scores(paths: Sequence[str], results: Sequence[Comparison]) -> None:
    """Warns where the outputs that were found give other scores than the run's results.json."""
    for result in results:
        for place, path in enumerate(paths):
            saved = (require_run(path).read_results() or {}).get("test", {}).get(result.test_set, {})
            for metric, scores in result.scores.items():
                entry = saved.get(metric)
                if entry is None or _settings(entry["signature"]) != _settings(result.signatures[metric]):
                    continue
                if abs(entry["score"] - scores[place].score) > 0.005:
                    LOGGER.warning(
                        "%s: %s of the outputs in generations for %s is %.2f, results.json has %.2f: outputs or "
                        "references have changed since",
                        path, metric, result.test_set, scores[place].score, entry["score"],
                    )  # fmt: skip


def _settings(signature: str) -> list[str]:
    return [field for field in signature.split("|") if not field.startswith(_SAMPLING_FIELDS)]


def _files(settings: CompareConfig, others: Sequence[str]) -> Compared:
    """The one test set that files make up."""
    errors = settings.data.encoding_errors
    place = "ref=" + ",".join(_listed(settings.ref))
    references, sources = _read_references(settings, errors)
    if settings.source is not None:
        sources = list(_lines(settings.source, "source", errors))
        if len(sources) != len(references):
            raise UserError(
                f"source={settings.source} has {len(sources):,} lines, {place} has {len(references):,} references"
            )
    paths = [("hyp", str(settings.hyp)), *(("other", path) for path in others)]
    systems = [
        System(name, list(_outputs(path, key, errors)), f"{key}={path}")
        for name, (key, path) in zip(_names([path for _, path in paths]), paths, strict=True)
    ]
    yield TestSet(Path(_listed(settings.ref)[0]).name, references, sources, place), systems


def _lines(path: str, key: str, errors: str) -> Iterator[str]:
    if is_jsonl(path):
        raise UserError(
            f"{key}={path}: text of one example a line is read here; records go in one ref=FILE.jsonl, which has "
            "references in target_field and references_field, and sources in source_field"
        )
    check_readable(Path(path), f"{key}={path}")
    return read_lines(Path(path), errors=errors)


def _outputs(path: str, key: str, errors: str) -> Iterator[str]:
    """The outputs of a system: lines, or what `generate format=jsonl` wrote, in which they keep their line breaks."""
    if not is_jsonl(path):
        yield from _lines(path, key, errors)
        return
    check_readable(Path(path), f"{key}={path}")
    yield from _texts(Path(path), errors=errors)


def _texts(path: Path, *, errors: str = "strict") -> Iterator[str]:
    for number, record in read_records(path, errors=errors):
        yield text_field(record, _OUTPUT_FIELD, f"{path}:{number}")


def _read_references(settings: CompareConfig, errors: str) -> tuple[list[tuple[str, ...]], list[str] | None]:
    """The references of each example, and its source where that is in the same file."""
    paths = _listed(settings.ref)
    if len(paths) == 1 and is_jsonl(paths[0]):
        return _read_records(paths[0], settings, errors)
    fields = [key for key in _FIELDS if getattr(settings, key) is not None]
    if fields:
        raise UserError(f"{fields[0]}={getattr(settings, fields[0])} goes with one ref=FILE.jsonl")
    columns = [list(_lines(path, "ref", errors)) for path in paths]
    for path, column in zip(paths, columns, strict=True):
        if len(column) != len(columns[0]):
            raise UserError(
                f"ref={path} has {len(column):,} lines, ref={paths[0]} has {len(columns[0]):,}: each file of "
                "references has one for each example"
            )
    if not columns[0]:
        raise UserError(f"ref={paths[0]} is empty: there is nothing to compare on")
    return list(zip(*columns, strict=True)), None


def _read_records(path: str, settings: CompareConfig, errors: str) -> tuple[list[tuple[str, ...]], list[str] | None]:
    check_readable(Path(path), f"ref={path}")
    target = settings.target_field or "target"
    corpus = CorpusConfig(
        path=path,
        source_field=settings.source_field or target,  # sources are shown only if they are named
        target_field=target,
        references_field=settings.references_field,
    )
    examples = list(read_examples(corpus, Path(), "ref", errors=errors))
    sources = None if settings.source_field is None else [example.source for example in examples]
    return [example.references for example in examples], sources
