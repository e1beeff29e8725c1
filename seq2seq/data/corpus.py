"""Reads corpora as streams of examples from two aligned files, JSONL records or tab-separated columns."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from seq2seq.data.alignment import describe_mismatch
from seq2seq.data.text import ENCODING_ERRORS, check_readable, read_lines
from seq2seq.data.unreadable import KEEP_BYTES, OnError, UnreadableRecords, attempt, require_utf8, utf8_error
from seq2seq.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_JSONL = (".jsonl", ".ndjson")
_MAX_NAME_BYTES = 200  # file systems allow 255, and suffixes are appended


class OnLong(str, Enum):
    """What to do with a training example beyond the length limits: drop it, or cut it."""

    skip = "skip"
    truncate = "truncate"


@dataclass
class CorpusConfig:
    """Files of one split: either `source` and `target`, or `path`.

    Attributes:
        source: text file, one source per line; ``.gz`` is decompressed.
        target: text file, aligned with `source` line by line.
        path: ``.jsonl`` (one object per line) or ``.tsv`` (no header, no quoting) file, or either with ``.gz``
            appended.
        source_field: JSONL: field of the source, default ``source``. TSV: column index, default 0.
        target_field: JSONL: field of the target, default ``target``. TSV: column index, default 1.
        references_field: JSONL: field of additional references, a string or a list of strings; may be missing
            from a record, but not from all.
    """

    source: str | None = None
    target: str | None = None
    path: str | None = None
    source_field: str | None = None
    target_field: str | None = None
    references_field: str | None = None


@dataclass
class DataConfig:
    """The corpora of a run, length limits and filters.

    Lengths are in tokens, with EOS and without BOS. Validation and test sets are never filtered: their lines stay
    aligned, and long texts are cut. The filters (`on_long`, `max_length_ratio`, `drop_*`) apply to training examples;
    `data_report.json` counts what each one drops or truncates.

    Attributes:
        root: folder that relative paths are resolved against.
        source_language: code such as ``de``, for file names and the metric's tokenizer.
        target_language: the same for the target.
        train: training corpus.
        valid: validation corpus.
        test: test sets by name.
        max_source_length: maximum tokens per source.
        max_target_length: maximum tokens per target.
        on_long: what to do with a longer training example.
        max_length_ratio: maximum of longer side / shorter side, in tokens; null means no limit.
        drop_duplicates: keeps only the first of training pairs with equal source and target.
        drop_identical: drops training pairs whose source equals their target.
        encoding_errors: ``strict`` rejects bytes that are not UTF-8, ``replace`` reads them as U+FFFD.
        on_error: ``stop`` refuses a training or validation corpus with a record that cannot be read; ``skip`` leaves
            such records out, counts and names them, and stops only if there are more than 1 %. Test sets are never
            shortened: their outputs stay aligned with their files.
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
    on_error: OnError = OnError.stop

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
            if (
                not name.isprintable()
                or not 0 < len(name.encode("utf-8")) <= _MAX_NAME_BYTES
                or name.startswith(".")
                or {"/", "\\"} & set(name)
            ):
                raise UserError(
                    f"data.test.{name}: a test set's name is also a file name: it must be printable, at most "
                    f"{_MAX_NAME_BYTES} bytes long, without slashes and without a leading dot."
                )
        if self.max_length_ratio is not None and not 1 <= self.max_length_ratio < math.inf:
            raise UserError(
                f"data.max_length_ratio={self.max_length_ratio}: must be at least 1 (longer / shorter); "
                "null disables the filter."
            )

    def corpora(self) -> dict[str, CorpusConfig]:
        """Returns all corpora by name: ``train``, ``valid`` and each ``test.<name>``."""
        tests = {f"test.{name}": corpus for name, corpus in self.test.items()}
        return {"train": self.train, "valid": self.valid, **tests}


@dataclass(frozen=True, slots=True)
class Example:
    """A source text with its target.

    Attributes:
        source: source text.
        target: target text.
        references: texts to score an output against: the target first, then additional references.
    """

    source: str
    target: str
    references: tuple[str, ...]


def resolve_root(root: str, *, package: Path = _PACKAGE) -> Path:
    """Returns the absolute path of the data folder, in the current folder or bundled with the package.

    A relative root that does not exist in the current folder is searched next to the package (a checkout), then by
    its last component inside the package (an installed wheel). If it is not found, returns the path in the current
    folder: all files may have absolute paths.
    """
    here = Path(root).expanduser().absolute()
    if Path(root).is_absolute() or here.is_dir():
        return here
    for candidate in (package.parent / root, package / "corpora" / Path(root).name):
        if candidate.is_dir():
            return candidate
    return here


def corpus_files(config: CorpusConfig, root: Path, key: str) -> dict[str, Path]:
    """Returns the files of a corpus by their config keys, such as ``{"data.train.source": Path(...), ...}``.

    Raises:
        UserError: the section names no files or is contradictory, or a file is missing or a folder.
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
        raise UserError(f"{key}.{missing[0]} is not set: set both source and target.")
    for name in ("source_field", "target_field", "references_field"):
        if getattr(config, name) is not None:
            raise UserError(f"{key}.{name}={getattr(config, name)}: only valid with {key}.path, not two text files.")
    return {f"{key}.{name}": _locate(str(value), root, f"{key}.{name}") for name, value in parallel.items()}


def _locate(value: str, root: Path, key: str) -> Path:
    """Resolves a configured path against the root and checks that there is a file."""
    path = root / Path(value).expanduser()
    try:
        check_readable(path, f"{key}={value}")
    except UserError as error:
        # os.path, because pathlib raises for a name that is too long.
        if not os.path.exists(path) and os.path.isfile(value):
            raise UserError(
                f"{error} Relative paths are resolved against data.root={root}; the file exists in the current folder: "
                "set data.root=. or give an absolute path."
            ) from error
        raise
    return path


def read_examples(
    config: CorpusConfig, root: Path, key: str, *, errors: str = "strict", unreadable: UnreadableRecords | None = None
) -> Iterator[Example]:
    """Yields the examples of a corpus in order, one per line; blank lines count, except in JSONL.

    Args:
        config: the corpus section.
        root: folder that relative paths are resolved against.
        key: the section's config key for messages, such as ``data.train``.
        errors: see `seq2seq.data.text.ENCODING_ERRORS`.
        unreadable: receives the records that cannot be read, which are left out; None refuses the corpus.

    Raises:
        UserError: as `corpus_files` and `read_lines`; the corpus has no examples; the two files have different
            numbers of lines (raised at the end, with both counts); a record lacks a field.
    """
    files = corpus_files(config, root, key)
    records = _reader(config, key)(files, config, KEEP_BYTES if unreadable and errors == "strict" else errors)
    first = next(records, None)
    if first is None:
        names = " and ".join(f"{name}={path}" for name, path in files.items())
        raise UserError(f"{names}: empty, without a single example.")
    records = chain([first], records)
    if unreadable is not None:
        yield from unreadable.leave_out(records, key)
        return
    for record in records:
        if isinstance(record, UserError):
            raise record
        yield record


def is_jsonl(path: str) -> bool:
    """Whether a file is JSONL by its name: the only format whose texts may contain line breaks."""
    return path.lower().removesuffix(".gz").endswith(_JSONL)


_Records = Iterator[Example | UserError]  # the error of a record that cannot be read
_Reader = Callable[[dict[str, Path], CorpusConfig, str], _Records]


def _reader(config: CorpusConfig, key: str) -> _Reader:
    """Returns the function that reads the corpus, by the suffix of the file name."""
    if config.path is None:
        return _read_parallel
    if is_jsonl(config.path):
        return _read_jsonl
    if config.path.lower().removesuffix(".gz").endswith(".tsv"):
        return _read_tsv
    raise UserError(
        f"{key}.path={config.path}: the name must end in .jsonl or .tsv (or .jsonl.gz, .tsv.gz). "
        f"For two aligned text files, set {key}.source and {key}.target."
    )


def _read_parallel(files: dict[str, Path], config: CorpusConfig, errors: str) -> _Records:
    source, target = files.values()
    lines = zip_longest(read_lines(source, errors=errors), read_lines(target, errors=errors))
    for num_pairs, (source_line, target_line) in enumerate(lines):
        if source_line is None or target_line is None:
            longer = num_pairs + 1 + sum(1 for _ in lines)
            counts = [num_pairs, longer] if source_line is None else [longer, num_pairs]
            raise UserError(describe_mismatch(files, counts, errors=errors))
        if errors == KEEP_BYTES:
            place = num_pairs + 1
            error = utf8_error(source_line, f"{source}:{place}") or utf8_error(target_line, f"{target}:{place}")
            if error is not None:
                yield error
                continue
        yield Example(source_line, target_line, (target_line,))


def read_records(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line number, from 1, and JSON object of each line of a JSONL file; skips blank lines.

    Raises:
        UserError: a line is not a JSON object; names the file and line.
    """
    for line_number, line in enumerate(read_lines(path, errors=errors), start=1):
        if line.strip():
            yield line_number, _parse_record(line, f"{path}:{line_number}")


def _parse_record(line: str, location: str) -> dict[str, Any]:
    require_utf8(line, location)
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{location}: not JSON: {error}. Each line must be one JSON object.") from error
    if not isinstance(record, dict):
        raise UserError(
            f"{location}: a JSON {_json_type(record)}, not an object. "
            'Each line must be one object, such as {"source": "...", "target": "..."}.'
        )
    return record


def text_field(record: dict[str, Any], name: str, location: str, *, key: str | None = None) -> str:
    """Returns the text in a field of a JSONL record.

    Args:
        record: a record from `read_records`.
        name: name of the field.
        location: file:line, for messages.
        key: config key that selects the field, for messages.

    Raises:
        UserError: the record lacks the field, or its value is not text.
    """
    if name not in record:
        found = ", ".join(map(str, record)) or "none"
        fix = f" Set {key} to one of these." if record and key else ""
        raise UserError(f"{location}: no field {name!r}; the record's fields: {found}.{fix}")
    return _checked_text(record[name], name, location)


def _checked_text(value: object, name: str, location: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{location}: field {name!r} contains a JSON {_json_type(value)}, not a string.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{location}: field {name!r} contains a lone surrogate (\\u{ord(value[error.start]):04x}) "
                f"at character {error.start + 1}, which is not valid text."
            ) from error
    return value


def _json_type(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _read_jsonl(files: dict[str, Path], config: CorpusConfig, errors: str) -> _Records:
    ((key, path),) = files.items()
    section = key.removesuffix("path") if key.startswith("data.") else ""  # of `compare`, whose keys have no prefix
    source_field = config.source_field or "source"
    target_field = config.target_field or "target"
    references_field = config.references_field
    found = references_field is None

    def example(line: str, location: str) -> Example:
        nonlocal found
        record = _parse_record(line, location)
        found = found or references_field in record
        target = text_field(record, target_field, location, key=f"{section}target_field")
        additional = _references(record, references_field, location)
        source = text_field(record, source_field, location, key=f"{section}source_field")
        return Example(source, target, (target, *additional))

    for line_number, line in enumerate(read_lines(path, errors=errors), start=1):
        if line.strip():
            yield attempt(partial(example, line, f"{path}:{line_number}"))
    if not found:
        raise UserError(f"{path}: no record has the field that {section}references_field={references_field} names.")


def _references(record: dict[str, Any], name: str | None, location: str) -> tuple[str, ...]:
    if name is None or record.get(name) is None:
        return ()
    value = record[name]
    items = value if isinstance(value, list) else [value]
    return tuple(_checked_text(item, name, location) for item in items)


def _read_tsv(files: dict[str, Path], config: CorpusConfig, errors: str) -> _Records:
    ((key, path),) = files.items()
    section = key.removesuffix(".path")
    if config.references_field is not None:
        raise UserError(f"{section}.references_field={config.references_field}: only JSONL files have references.")
    source_column = _column_index(config.source_field, 0, f"{section}.source_field")
    target_column = _column_index(config.target_field, 1, f"{section}.target_field")
    num_required = max(source_column, target_column) + 1

    def example(line: str, location: str) -> Example:
        require_utf8(line, location)
        columns = line.split("\t")
        if len(columns) < num_required:
            raise UserError(
                f"{location}: {len(columns)} column(s), needs at least {num_required}. "
                "Source and target are separated by a tab; there is no quoting."
            )
        target = columns[target_column]
        return Example(columns[source_column], target, (target,))

    for line_number, line in enumerate(read_lines(path, errors=errors), start=1):
        yield attempt(partial(example, line, f"{path}:{line_number}"))


def _column_index(value: str | None, default: int, key: str) -> int:
    if value is None:
        return default
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"{key}={value}: a TSV file has no header; give the column index, from 0.")
    return int(value)
