"""`seq2seq compare`: compares runs, or files of outputs, on the same references."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig, TableFormat, as_list, named_tests
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
from seq2seq.metrics.signature import Signature
from seq2seq.metrics.significance import ResamplingConfig
from seq2seq.runs import comparison
from seq2seq.runs.comparison import Comparison, System, TestSet
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.console import console_log

logger = logging.getLogger("seq2seq")

_FIELDS = ("source_field", "target_field", "references_field")
_RESAMPLING = ("bs", "ar", "seed")  # of a signature: they do not change the score itself

ComparisonInputs = Iterator[tuple[TestSet, list[System]]]


def compare(settings: CompareConfig, *, given: Sequence[str]) -> None:
    """Prints scores, significance tests, and the examples that differ most.

    Args:
        settings: what to compare, and how; with ``run=``, `data` and `metrics` are the run's.
        given: the keys given on the command line.

    Raises:
        UserError: if something cannot be compared, or a key has no effect.
    """
    _check(settings, given)
    first = ("hyp", str(settings.hyp)) if settings.run is None else ("run", settings.run)
    paths = [first, *(("other", path) for path in as_list(settings.other))]
    with console_log():
        if settings.run is None:
            inputs = _inputs_from_files(settings, paths)
        else:
            inputs = _inputs_from_runs(settings, paths, given)
        results = [
            comparison.compare(
                test,
                systems,
                settings.metrics,
                target_language=settings.data.target_language,
                resampling=ResamplingConfig(settings.resamples, settings.trials, settings.seed),
                examples=settings.examples,
            )
            for test, systems in inputs
        ]
        if settings.run is not None:
            _warn_if_scores_differ([path for _, path in paths], results)
    if settings.format is TableFormat.json:
        print(
            json.dumps({one.test_set: one.to_dict() for one in results}, indent=2, ensure_ascii=False, allow_nan=False)
        )
    else:
        print("\n\n".join(comparison.markdown(one) for one in results))


def _check(settings: CompareConfig, given: Sequence[str]) -> None:
    """Raises a UserError unless the keys say what to compare with what."""
    if (settings.run is None) == (settings.hyp is None):
        raise UserError(
            "compare takes run=DIR other=DIR, or hyp=FILE other=FILE ref=FILE: "
            + ("give one of run= and hyp=" if settings.run is None else "run= and hyp= are both set")
        )
    if not as_list(settings.other):
        raise UserError(
            "other= is missing: name what to compare with "
            + (f"run={settings.run}" if settings.hyp is None else f"hyp={settings.hyp}")
        )
    if settings.hyp is not None and not as_list(settings.ref):
        raise UserError(f"ref= is missing: name the file of references to score hyp={settings.hyp} against")
    if settings.run is None:
        unused = [key for key in given if key.startswith(("data.root", "data.test."))]
        reason = "needs run=; paths of files are relative to the current folder"
    else:
        unused = [key for key in ("ref", "source", *_FIELDS) if getattr(settings, key) is not None]
        reason = "needs hyp=; runs are scored against the references of their test sets"
    if unused:
        raise UserError(f"{unused[0]} {reason}")
    if "metrics.bootstrap" in given:
        raise UserError("metrics.bootstrap has no effect here: resamples=N sets the number of bootstrap resamples")


def _names(paths: Sequence[str]) -> list[str]:
    """Returns the names of the systems in tables: the last part of each path, or all whole paths if two agree in it."""
    short = [Path(path).absolute().name for path in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    return [name if name not in names[:i] else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _inputs_from_runs(
    settings: CompareConfig, paths: Sequence[tuple[str, str]], given: Sequence[str]
) -> ComparisonInputs:
    """Yields each test set of the first run with the outputs of all runs, given as pairs of key and path."""
    labels = [f"{key}={path}" for key, path in paths]
    folders = [_require_complete_run(path, key) for key, path in paths]
    data = [settings.data, *(_data_of(folder, settings.data, given) for folder in folders[1:])]
    names = _names([path for _, path in paths])
    test_sets = named_tests(settings.data, given) or list(settings.data.test)
    if not test_sets:
        raise UserError(f"run={settings.run} has no test set to compare on")
    for test_set in test_sets:
        first, *rest = (_read(section, test_set, label) for section, label in zip(data, labels, strict=True))
        for corpus, label in zip(rest, labels[1:], strict=True):
            _check_references(test_set, {labels[0]: first, label: corpus})
        systems = [
            System(name, *_generations(folder, test_set, label))
            for name, folder, label in zip(names, folders, labels, strict=True)
        ]
        references = [example.references for example in first]
        sources = [example.source for example in first]
        yield TestSet(test_set, references, sources, f"data.test.{test_set}"), systems


def _require_complete_run(path: str, key: str) -> RunFolder:
    folder = require_run(path, key=key)
    if folder.read_results() is None:
        raise UserError(
            f"{key}={path} is not complete: run its `seq2seq train` command again to resume it; or compare "
            "files of outputs with hyp=, other= and ref="
        )
    return folder


def _data_of(folder: RunFolder, first: DataConfig, given: Sequence[str]) -> DataConfig:
    """Returns a run's own data section with the keys given on the command line, which apply to all runs."""
    data = saved.load(folder.config).data
    changes = {key: getattr(first, key) for key in ("root", "encoding_errors") if f"data.{key}" in given}
    return replace(data, test=data.test | {name: first.test[name] for name in named_tests(first, given)}, **changes)


def _read(data: DataConfig, test_set: str, label: str) -> list[Example]:
    """Reads the examples of a run's test set."""
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
    (first_label, first), (second_label, second) = corpora.items()
    if len(first) != len(second):
        difference = f"{len(first):,} examples against {len(second):,}"
    else:
        pairs = zip(first, second, strict=True)
        index = next((i for i, (a, b) in enumerate(pairs) if a.references != b.references), None)
        if index is None:
            return
        references = f"{first[index].references[0]!r} against {second[index].references[0]!r}"
        difference = f"in example {index + 1} {references}"
    raise UserError(
        f"{first_label} and {second_label} have different references in test set {test_set}: {difference}. "
        f"Scores on different references cannot be compared; ~data.test.{test_set} leaves the set out"
    )


def _generations(folder: RunFolder, test_set: str, label: str) -> tuple[list[str], str]:
    """Reads a run's outputs; returns them and the path of their file."""
    path = folder.generations / f"{test_set}.txt"
    if not path.is_file():
        raise UserError(
            f"{label} has no outputs for test set {test_set}: there is no {path}. `seq2seq evaluate run={folder.path}` "
            f"writes them to {folder.path}/evaluations/best, which hyp=, other= and ref= compare; "
            f"~data.test.{test_set} leaves the set out"
        )
    records = path.with_suffix(".jsonl")  # only exists if outputs contain line breaks
    return (list(_read_texts(records)), str(records)) if records.is_file() else (list(read_lines(path)), str(path))


def _warn_if_scores_differ(paths: Sequence[str], results: Sequence[Comparison]) -> None:
    """Warns if the outputs of a run have other scores than its results.json."""
    for result in results:
        for index, path in enumerate(paths):
            saved_scores = (require_run(path).read_results() or {}).get("test", {}).get(result.test_set, {})
            for metric, scores in result.scores.items():
                entry = saved_scores.get(metric)
                if entry is None or _scoring(entry["signature"]) != _scoring(result.signatures[metric]):
                    continue
                if abs(entry["score"] - scores[index].score) > 0.005:
                    logger.warning(
                        "%s: the outputs in generations/ have a %s of %.2f on %s, results.json has %.2f: outputs or "
                        "references have changed since",
                        path, metric, scores[index].score, result.test_set, entry["score"],
                    )  # fmt: skip


def _scoring(signature: str) -> Signature:
    """Returns the part of a signature on which the score depends."""
    return Signature.parse(signature).without(*_RESAMPLING)


def _inputs_from_files(settings: CompareConfig, paths: Sequence[tuple[str, str]]) -> ComparisonInputs:
    """Yields the only test set, of references and outputs in files, given as pairs of key and path."""
    errors = settings.data.encoding_errors
    label = "ref=" + ",".join(as_list(settings.ref))
    references, sources = _read_references(settings, errors)
    if settings.source is not None:
        sources = list(_read_lines(settings.source, "source", errors))
        if len(sources) != len(references):
            raise UserError(
                f"source={settings.source} has {len(sources):,} lines, {label} has {len(references):,} references"
            )
    systems = [
        System(name, list(_read_outputs(path, key, errors)), f"{key}={path}")
        for name, (key, path) in zip(_names([path for _, path in paths]), paths, strict=True)
    ]
    yield TestSet(Path(as_list(settings.ref)[0]).name, references, sources, label), systems


def _read_lines(path: str, key: str, errors: str) -> Iterator[str]:
    if is_jsonl(path):
        raise UserError(
            f"{key}={path}: must be text with one example per line; give records as one ref=FILE.jsonl, with "
            "references in target_field and references_field, and sources in source_field"
        )
    check_readable(Path(path), f"{key}={path}")
    return read_lines(Path(path), errors=errors)


def _read_outputs(path: str, key: str, errors: str) -> Iterator[str]:
    """Reads the outputs of a system: lines, or JSONL of `generate format=jsonl`, which keeps their line breaks."""
    if not is_jsonl(path):
        return _read_lines(path, key, errors)
    check_readable(Path(path), f"{key}={path}")
    return _read_texts(Path(path), errors=errors)


def _read_texts(path: Path, *, errors: str = "strict") -> Iterator[str]:
    for line_number, record in read_records(path, errors=errors):
        yield text_field(record, "text", f"{path}:{line_number}")  # the best output in the JSONL of `generate`


def _read_references(settings: CompareConfig, errors: str) -> tuple[list[tuple[str, ...]], list[str] | None]:
    """Reads the references of each example, and the sources if they are in the same file."""
    paths = as_list(settings.ref)
    if len(paths) == 1 and is_jsonl(paths[0]):
        return _read_records(paths[0], settings, errors)
    fields = [key for key in _FIELDS if getattr(settings, key) is not None]
    if fields:
        raise UserError(f"{fields[0]}={getattr(settings, fields[0])} needs one ref=FILE.jsonl")
    columns = [list(_read_lines(path, "ref", errors)) for path in paths]
    for path, column in zip(paths, columns, strict=True):
        if len(column) != len(columns[0]):
            raise UserError(
                f"ref={path} has {len(column):,} lines, ref={paths[0]} has {len(columns[0]):,}: each file of "
                "references must have one per example"
            )
    if not columns[0]:
        raise UserError(f"ref={paths[0]} is empty: there is nothing to compare")
    return list(zip(*columns, strict=True)), None


def _read_records(path: str, settings: CompareConfig, errors: str) -> tuple[list[tuple[str, ...]], list[str] | None]:
    check_readable(Path(path), f"ref={path}")
    target = settings.target_field or "target"
    corpus = CorpusConfig(
        path=path,
        source_field=settings.source_field or target,  # sources are shown only if their field is given
        target_field=target,
        references_field=settings.references_field,
    )
    examples = list(read_examples(corpus, Path(), "ref", errors=errors))
    sources = None if settings.source_field is None else [example.source for example in examples]
    return [example.references for example in examples], sources
