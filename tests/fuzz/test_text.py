"""Whatever bytes a corpus holds: lines and examples by the documented rules, or one message."""

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seq2seq.data.corpus import CorpusConfig, Example, read_examples
from seq2seq.data.text import decode_lines, read_lines
from seq2seq.errors import UserError

BOM = b"\xef\xbb\xbf"
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")

# Bytes that mean something to some reader of lines, among ordinary ones.
PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\0", BOM, b"\t", b" ", b"a", b"word", b"{}", b'"']
    + [char.encode() for char in "\u0085\u2028\u2029\u00a0\ufeff\u2581é世🙂\U0010ffff"]
    + [b"\xff", b"\xc3", b"\xed\xa0\x80", *MAGIC]
)
CONTENT = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=25).map(b"".join))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def lines_of(content: bytes) -> list[str]:
    """The rule, said another way: split at line feeds; drop one carriage return at each end, and one mark in front."""
    content = content.removeprefix(BOM)
    if not content:
        return []
    lines = content.removesuffix(b"\n").split(b"\n")
    return [line.removesuffix(b"\r").decode() for line in lines]


def is_text(content: bytes) -> bool:
    """Whether no rule speaks against reading this as UTF-8."""
    first = content.removeprefix(BOM).split(b"\n")[0]
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return not first.startswith(MAGIC) and b"\0" not in first


@given(CONTENT, st.integers(1, 50))
@example(b"a\rb\r\nc\r", 1)
@example(BOM, 1)
@example(BOM + b"\n", 1)
@example(BOM + BOM + b"a", 2)
@example("a\u2028b\u0085c\x0bd\x0ce\n".encode(), 3)
def test_lines_follow_the_rule_or_are_refused(content: bytes, at_once: int) -> None:
    try:
        found = list(decode_lines(io.BufferedReader(io.BytesIO(content), at_once), "it"))
    except UserError:
        assert not is_text(content)
        return
    assert found == lines_of(content)
    assert list(decode_lines(io.BytesIO(content), "it", errors="replace")) == found


@given(CONTENT)
def test_replacing_keeps_the_number_of_lines(content: bytes) -> None:
    try:
        found = list(decode_lines(io.BytesIO(content), "it", errors="replace"))
    except UserError:
        assert not is_text(content)
        return
    whole = content.removeprefix(BOM)
    assert len(found) == whole.count(b"\n") + (not whole.endswith(b"\n") and whole != b"")
    for line in found:
        line.encode()


@given(CONTENT, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 60))
def test_a_damaged_gzip_file_is_refused_or_what_was_packed(
    folder: Path, content: bytes, edits: list[tuple[int, int]], cut: int
) -> None:
    packed = bytearray(gzip.compress(content, mtime=0))
    for place, value in edits:
        packed[place % len(packed)] = value
    path = folder / "text.gz"
    path.write_bytes(packed[: len(packed) - cut % len(packed)] if cut % 3 == 0 else packed)
    try:
        found = list(read_lines(path))
    except UserError:
        return
    if is_text(content) and found:
        assert found == lines_of(content)  # the checksum of gzip let nothing else through


@given(CONTENT, CONTENT)
def test_two_files_give_pairs_line_by_line_or_a_message(folder: Path, source: bytes, target: bytes) -> None:
    (folder / "source").write_bytes(source)
    (folder / "target").write_bytes(target)
    try:
        found = list(read_examples(CorpusConfig(source="source", target="target"), folder, "data.train"))
    except UserError:
        if is_text(source) and is_text(target):
            assert len(lines_of(source)) != len(lines_of(target)) or not lines_of(source)
        return
    pairs = zip(lines_of(source), lines_of(target), strict=True)
    assert found == [Example(one, other, (other,)) for one, other in pairs]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
RECORD = st.fixed_dictionaries({}, optional={"source": JSON | TEXT, "target": JSON | TEXT, "more": JSON})


@given(st.lists(RECORD, min_size=1, max_size=4), st.sampled_from([None, "more"]))
def test_records_are_read_as_json_has_them(folder: Path, records: list[dict[str, object]], more: str | None) -> None:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8", newline="\n")
    sound = all(isinstance(record.get(name), str) for record in records for name in ("source", "target"))
    try:
        found = list(read_examples(CorpusConfig(path=path.name, references_field=more), folder, "data.train"))
    except UserError:
        assert not sound or more
        return
    assert sound
    assert [(one.source, one.target) for one in found] == [(one["source"], one["target"]) for one in records]


@given(CONTENT, st.sampled_from(["x.jsonl", "x.tsv", "x.ndjson", "x.JSONL"]))
@example(b'{"source": "\\ud800", "target": "a"}\n', "x.jsonl")
@example(b"[" * 100_000 + b"\n", "x.jsonl")
@example(b'{"source": "a", "target": ' + b"9" * 5000 + b"}\n", "x.jsonl")
def test_records_from_any_bytes_are_text_or_refused(folder: Path, content: bytes, name: str) -> None:
    (folder / name).write_bytes(content)
    try:
        found = list(read_examples(CorpusConfig(path=name), folder, "data.valid"))
    except UserError:
        return
    for one in found:
        "".join((one.source, *one.references)).encode()


COLUMN = TEXT.filter(lambda text: not set("\t\r\ufeff\0") & set(text))


@given(st.lists(st.lists(COLUMN, min_size=1, max_size=4), max_size=4))
def test_columns_are_split_at_tabs(folder: Path, rows: list[list[str]]) -> None:
    content = "".join("\t".join(row) + "\n" for row in rows).encode()
    (folder / "rows.tsv").write_bytes(content)
    try:
        found = list(read_examples(CorpusConfig(path="rows.tsv"), folder, "data.train"))
    except UserError:
        assert not rows or any(len(row) < 2 for row in rows) or not is_text(content)
        return
    assert [(one.source, one.target) for one in found] == [(row[0], row[1]) for row in rows]
