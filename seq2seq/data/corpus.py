"""Corpora as streams of examples: two aligned files, JSONL records, or tab-separated columns."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest
from pathlib import Path
from typing import Any

from seq2seq.data.alignment import describe_mismatch
from seq2seq.data.text import ENCODING_ERRORS, check_readable, read_lines
from seq2seq.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_JSONL = (".jsonl", ".ndjson")
_LONGEST_NAME = 200  # bytes; file systems take 255, and endings come behind


class OnLong(str, Enum):
    """What becomes of a training example that is longer than the limits: left out, or cut."""

    skip = "skip"
    truncate = "truncate"


@dataclass
class CorpusConfig:
    """Where the examples of one split are: either `source` and `target`, or `path`.

    Attributes:
        source: text file, a source a line (``.gz`` is read as it is).
        target: text file, aligned with `source` line by line.
        path: ``.jsonl`` (an object a line) or ``.tsv`` (no header, no quoting) file, also with ``.gz``
            behind.
        source_field: JSONL: the field of the source, default ``source``. TSV: the column, default 0.
        target_field: JSONL: the field of the target, default ``target``. TSV: the column, default 1.
        references_field: JSONL: a field with further references, a string or a list of strings; may be
            missing from a record, but not from all of them.
    """

    source: str | None = None
    target: str | None = None
    path: str | None = None
    source_field: str | None = None
    target_field: str | None = None
    references_field: str | None = None


@dataclass
class DataConfig:
    """The corpora of a run, and what is kept of them.

    Lengths are in tokens; the end-of-sentence token counts, the begin token does not. Validation and test
    sets are never filtered: their lines stay aligned, and what is too long is truncated. The filters
    (`on_long`, `max_length_ratio`, `drop_*`) concern training examples, and each counts what it drops.

    Attributes:
        root: folder that relative paths are resolved against.
        source_language: code such as ``de``, for file names and the metric's tokenizer.
        target_language: the same for the target.
        train: training corpus.
        valid: validation corpus.
        test: test sets by name.
        max_source_length: tokens of a source.
        max_target_length: tokens of a target.
        on_long: what becomes of a longer training example.
        max_length_ratio: longer side / shorter side, in tokens; null is no limit.
        drop_duplicates: keeps the first of training pairs that are equal in source and target.
        drop_identical: drops training pairs whose source equals their target.
        encoding_errors: ``strict`` refuses bytes that are not UTF-8, ``replace`` reads them as U+FFFD.
    """

    root: str = "data"
    source_language: str | None = None
    target_language: str | None = None
    train: CorpusConfig = field(default_factory=CorpusConfig)
    valid: CorpusConfig = field(default_factory=CorpusConfig)
    test: dict[str, CorpusConfig] = field(default_factory=dict)
    max_source_length: int = 256
    max_target_length: int = 256
    on_long: OnLong = OnLong.skip
    max_length_ratio: float | None = None
    drop_duplicates: bool = False
    drop_identical: bool = False
    encoding_errors: str = "strict"

    def __post_init__(self) -> None:
        if self.encoding_errors not in ENCODING_ERRORS:
            raise UserError(
                f"data.encoding_errors={self.encoding_errors}: must be one of {', '.join(ENCODING_ERRORS)}."
            )
        for key in ("max_source_length", "max_target_length"):
            value = getattr(self, key)
            if value < 2:
                raise UserError(f"data.{key}={value}: must be at least 2 (one token and the end of sentence).")
        for name in self.test:
            if not _is_file_name(name):
                raise UserError(
                    f"data.test.{name}: a test set's name is a file's too: it must be printable, of at most "
                    f"{_LONGEST_NAME} bytes, without slashes and without a dot in front."
                )
        if self.max_length_ratio is not None and not 1 <= self.max_length_ratio < math.inf:
            raise UserError(
                f"data.max_length_ratio={self.max_length_ratio}: must be at least 1 (longer / shorter); "
                "null switches the filter off."
            )


def _is_file_name(name: str) -> bool:
    return (
        name.isprintable()
        and 0 < len(name.encode("utf-8")) <= _LONGEST_NAME
        and not name.startswith(".")
        and not {"/", "\\"} & set(name)
    )


@dataclass(frozen=True, slots=True)
class Example:
    """One source text with its target.

    Attributes:
        source: source text.
        target: target text.
        references: what a generated text is scored against: the target first, then further references.
    """

    source: str
    target: str
    references: tuple[str, ...]


def resolve_root(root: str, *, package: Path = _PACKAGE) -> Path:
    """Absolute path of the data folder: below the current folder, or of a corpus that comes with the package.

    A relative root that does not exist below the current folder is looked for beside the package (a
    checkout), then by its last part inside the package (an installed wheel). A root found nowhere is returned
    as it is below the current folder: the files in it may all be given by absolute paths.
    """
    here = Path(root).expanduser().absolute()
    if Path(root).is_absolute() or here.is_dir():
        return here
    for candidate in (package.parent / root, package / "corpora" / Path(root).name):
        if candidate.is_dir():
            return candidate
    return here


def corpus_files(config: CorpusConfig, root: Path, key: str) -> dict[str, Path]:
    """The files of a corpus by their config keys, such as ``{"data.train.source": Path(...), ...}``.

    Raises:
        UserError: the section names no files or contradicts itself, or a file is missing or a folder.
    """
    parallel = {"source": config.source, "target": config.target}
    if config.path is not None:
        given = [name for name, value in parallel.items() if value is not None]
        if given:
            raise UserError(
                f"{key}.path={config.path} and {key}.{given[0]}={parallel[given[0]]} are both set: "
                "give either path (JSONL or TSV) or source and target (two text files)."
            )
        return {f"{key}.path": _locate(config.path, root, f"{key}.path")}
    missing = [name for name, value in parallel.items() if value is None]
    if len(missing) == 2:
        raise UserError(
            f"{key} names no corpus: set {key}.source and {key}.target (two aligned text files), "
            f"or {key}.path (a .jsonl or .tsv file)."
        )
    if missing:
        raise UserError(f"{key}.{missing[0]} is not set: source and target go together.")
    for name in ("source_field", "target_field", "references_field"):
        if getattr(config, name) is not None:
            raise UserError(f"{key}.{name}={getattr(config, name)}: goes with {key}.path, not with two text files.")
    return {f"{key}.{name}": _locate(str(value), root, f"{key}.{name}") for name, value in parallel.items()}


def _locate(value: str, root: Path, key: str) -> Path:
    path = root / Path(value).expanduser()
    try:
        check_readable(path, f"{key}={value}")
    except UserError as error:
        if not os.path.exists(path) and os.path.isfile(value):  # pathlib's would raise for a name that is too long
            raise UserError(
                f"{error} Relative paths are below data.root={root}; the current folder has such a file: "
                "set data.root=. or give an absolute path."
            ) from error
        raise
    return path


def read_examples(config: CorpusConfig, root: Path, key: str, *, errors: str = "strict") -> Iterator[Example]:
    """Yields the examples of a corpus in order, an example a line, blank ones included.

    Args:
        config: where they are.
        root: folder that relative paths are resolved against.
        key: the section's config key for messages, such as ``data.train``.
        errors: see `seq2seq.data.text.ENCODING_ERRORS`.

    Raises:
        UserError: as `corpus_files` and `read_lines`; a corpus without any example; two files with different
            numbers of lines (found at the end: both are counted); a record without its fields.
    """
    files = corpus_files(config, root, key)
    examples = _reader(config, key)(files, config, errors)
    first = next(examples, None)
    if first is None:
        names = " and ".join(f"{name}={path}" for name, path in files.items())
        raise UserError(f"{names}: empty, not one example in it.")
    yield first
    yield from examples


def is_jsonl(path: str) -> bool:
    """Whether a file is JSONL by its name: the only kind whose texts may hold line breaks."""
    return path.lower().removesuffix(".gz").endswith(_JSONL)


_Reader = Callable[[dict[str, Path], CorpusConfig, str], Iterator[Example]]


def _reader(config: CorpusConfig, key: str) -> _Reader:
    """The function that reads this kind of corpus, by the file's name."""
    if config.path is None:
        return _read_parallel
    if is_jsonl(config.path):
        return _read_jsonl
    if config.path.lower().removesuffix(".gz").endswith(".tsv"):
        return _read_tsv
    raise UserError(
        f"{key}.path={config.path}: the name must end in .jsonl or .tsv (or .jsonl.gz, .tsv.gz). "
        f"Two aligned text files are given by {key}.source and {key}.target."
    )


def _read_parallel(files: dict[str, Path], config: CorpusConfig, errors: str) -> Iterator[Example]:
    del config
    source, target = files.values()
    lines = zip_longest(read_lines(source, errors=errors), read_lines(target, errors=errors))
    for pairs, (source_line, target_line) in enumerate(lines):
        if source_line is None or target_line is None:
            longer = pairs + 1 + sum(1 for _ in lines)
            counts = [pairs, longer] if source_line is None else [longer, pairs]
            raise UserError(describe_mismatch(files, counts, errors=errors))
        yield Example(source_line, target_line, (target_line,))


def read_records(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the JSON objects of a JSONL file with their line numbers (from 1); blank lines are no records.

    Raises:
        UserError: a line is not a JSON object, named by file and line.
    """
    for number, line in enumerate(read_lines(path, errors=errors), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON: {error}. Each line must be one JSON object.") from error
        if not isinstance(record, dict):
            raise UserError(
                f"{path}:{number}: a JSON {_json_type(record)}, not an object. "
                'Each line must be one object, such as {"source": "...", "target": "..."}.'
            )
        yield number, record


def text_field(record: dict[str, Any], name: str, place: str, *, key: str | None = None) -> str:
    """The text in a field of a JSONL record.

    Args:
        record: as `read_records` yields it.
        name: of the field.
        place: file:line, for messages.
        key: what a user chooses the field by.

    Raises:
        UserError: the record lacks the field, or what it holds is not text.
    """
    if name not in record:
        found = ", ".join(map(str, record)) or "none"
        fix = f" Set {key} to the one that is meant." if record and key else ""
        raise UserError(f"{place}: no field {name!r}; the record's fields: {found}.{fix}")
    return _checked_text(record[name], name, place)


def _checked_text(value: object, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: field {name!r} holds a JSON {_json_type(value)}, not a string.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{place}: field {name!r} holds half of a surrogate pair (\\u{ord(value[error.start]):04x}) "
                f"at character {error.start + 1}, which is no text."
            ) from error
    return value


def _json_type(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _read_jsonl(files: dict[str, Path], config: CorpusConfig, errors: str) -> Iterator[Example]:
    ((key, path),) = files.items()
    section = key.removesuffix("path") if key.startswith("data.") else ""  # `compare` has the same keys at its top
    source_field = config.source_field or "source"
    target_field = config.target_field or "target"
    references_field = config.references_field
    found = references_field is None
    for number, record in read_records(path, errors=errors):
        place = f"{path}:{number}"
        found = found or references_field in record
        target = text_field(record, target_field, place, key=f"{section}target_field")
        more = _references(record, references_field, place)
        source = text_field(record, source_field, place, key=f"{section}source_field")
        yield Example(source, target, (target, *more))
    if not found:
        raise UserError(f"{path}: no record has the field that {section}references_field={references_field} names.")


def _references(record: dict[str, Any], name: str | None, place: str) -> tuple[str, ...]:
    if name is None or record.get(name) is None:
        return ()
    value = record[name]
    items = value if isinstance(value, list) else [value]
    return tuple(_checked_text(item, name, place) for item in items)


def _read_tsv(files: dict[str, Path], config: CorpusConfig, errors: str) -> Iterator[Example]:
    ((key, path),) = files.items()
    section = key.removesuffix(".path")
    if config.references_field is not None:
        raise UserError(f"{section}.references_field={config.references_field}: only JSONL has references.")
    source_column = _column(config.source_field, 0, f"{section}.source_field")
    target_column = _column(config.target_field, 1, f"{section}.target_field")
    needed = max(source_column, target_column) + 1
    for number, line in enumerate(read_lines(path, errors=errors), start=1):
        columns = line.split("\t")
        if len(columns) < needed:
            raise UserError(
                f"{path}:{number}: {len(columns)} column(s), needs at least {needed}. "
                "Source and target are separated by a tab; there is no quoting."
            )
        target = columns[target_column]
        yield Example(columns[source_column], target, (target,))


def _column(value: str | None, default: int, key: str) -> int:
    if value is None:
        return default
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"{key}={value}: a TSV file has no header; give the number of the column, from 0.")
    return int(value)
