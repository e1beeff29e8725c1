import gzip
import json
from functools import partial
from pathlib import Path

import pytest

from seq2seq.data.corpus import CorpusConfig, DataConfig, Example, read_examples, resolve_root
from seq2seq.errors import UserError


def read(config: CorpusConfig, root: Path) -> list[Example]:
    return list(read_examples(config, root, "data.train"))


def write(path: Path, *lines: str) -> str:
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path.name


def test_parallel_files_keep_blank_lines(tmp_path: Path) -> None:
    config = CorpusConfig(
        source=write(tmp_path / "a", "x", "", " ", "z"), target=write(tmp_path / "b", "1", "", "3", "4")
    )
    examples = read(config, tmp_path)
    assert [(e.source, e.target) for e in examples] == [("x", "1"), ("", ""), (" ", "3"), ("z", "4")]
    assert examples[0].references == ("1",)


@pytest.mark.parametrize(("source", "target"), [(7, 10), (10, 7), (0, 3), (3, 0)])
def test_different_counts_name_both_counts(tmp_path: Path, source: int, target: int) -> None:
    config = CorpusConfig(source=write(tmp_path / "a", *["x"] * source), target=write(tmp_path / "b", *["y"] * target))
    with pytest.raises(UserError) as info:
        read(config, tmp_path)
    message = str(info.value)
    assert f"data.train.source={tmp_path / 'a'} has {source} lines" in message
    assert f"data.train.target={tmp_path / 'b'} has {target}" in message


def test_jsonl(tmp_path: Path) -> None:
    records = [
        {"body": "a\nb", "subject": "s", "notes": ["t", "u"]},
        {"body": "", "subject": "é", "notes": "v"},
        {"body": "c", "subject": "w"},
        {"body": "d", "subject": "x", "notes": None},
    ]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "", ""]).encode()))
    config = CorpusConfig(path="x.jsonl.gz", source_field="body", target_field="subject", references_field="notes")
    examples = read(config, tmp_path)
    assert [e.source for e in examples] == ["a\nb", "", "c", "d"]
    assert [e.references for e in examples] == [("s", "t", "u"), ("é", "v"), ("w",), ("x",)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops}", r"x\.jsonl:2: not JSON"),
        ("[1, 2]", r"x\.jsonl:2: a JSON array, not an object"),
        ('"text"', r"x\.jsonl:2: a JSON string, not an object"),
        ("[" * 100_000, r"x\.jsonl:2: not JSON"),
        (
            '{"source": "a", "goal": "b"}',
            r"x\.jsonl:2: no field 'target'; .* source, goal\. Set data\.train\.target_field",
        ),
        ("{}", r"x\.jsonl:2: no field 'target'; the record's fields: none"),
        ('{"source": "a", "target": 3}', r"x\.jsonl:2: field 'target' contains a JSON number, not a string"),
        ('{"source": null, "target": "b"}', r"x\.jsonl:2: field 'source' contains a JSON null"),
        (
            '{"source": "a\\ud800", "target": "b"}',
            r"x\.jsonl:2: field 'source' contains a lone surrogate",
        ),
        ('{"source": "a", "target": "b", "more": [1]}', r"x\.jsonl:2: field 'more' contains a JSON number"),
    ],
)
def test_wrong_jsonl_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "x.jsonl", '{"source": "a", "target": "b"}', line)
    with pytest.raises(UserError, match=message):
        read(CorpusConfig(path=path, references_field="more"), tmp_path)


def test_references_that_no_record_has_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"source": "a", "target": "b", "more": []}', '{"source": "a", "target": "b"}')
    assert len(read(CorpusConfig(path=path, references_field="more"), tmp_path)) == 2
    with pytest.raises(UserError, match=r"x\.jsonl: no record .* data\.train\.references_field=mroe"):
        read(CorpusConfig(path=path, references_field="mroe"), tmp_path)


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", 'a "b\t"c\tmore', "\t", "x\ty")
    assert [(e.source, e.target) for e in read(CorpusConfig(path=path), tmp_path)] == [
        ('a "b', '"c'),
        ("", ""),
        ("x", "y"),
    ]
    path = write(tmp_path / "y.tsv", "1\t2\t3")
    swapped = CorpusConfig(path=path, source_field="2", target_field="0")
    assert [(e.source, e.target) for e in read(swapped, tmp_path)] == [("3", "1")]


def test_wrong_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "a\tb", "c d")
    with pytest.raises(UserError, match=r"x\.tsv:2: 1 column\(s\), needs at least 2"):
        read(CorpusConfig(path=path), tmp_path)
    with pytest.raises(UserError, match=r"data\.train\.source_field=text: a TSV file has no header"):
        read(CorpusConfig(path=path, source_field="text"), tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CorpusConfig(), r"data\.train names no corpus: set data\.train\.source and data\.train\.target"),
        (CorpusConfig(source="a"), r"data\.train\.target is not set"),
        (
            CorpusConfig(source="a", path="x.tsv"),
            r"data\.train\.path=x\.tsv and data\.train\.source=a are both set",
        ),
        (CorpusConfig(source="a", target="a", source_field="f"), r"data\.train\.source_field=f: only valid with"),
        (CorpusConfig(path="a"), r"data\.train\.path=a: the name must end in \.jsonl or \.tsv"),
        (CorpusConfig(source="a", target="no"), r"data\.train\.target=no \(.*no\): no such file"),
        (CorpusConfig(source="a", target="."), r"data\.train\.target=\. \(.*\): is a folder"),
        (CorpusConfig(source="a", target="a"), r"data\.train\.source=.*a: empty"),
    ],
)
def test_wrong_sections(tmp_path: Path, config: CorpusConfig, message: str) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match=message):
        read(config, tmp_path)


def test_a_file_of_the_current_folder_is_hinted_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a", "x")
    with pytest.raises(UserError, match=r"set data\.root=\."):
        read(CorpusConfig(source="a", target="a"), tmp_path / "data")


def test_root_falls_back_to_bundled_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "seq2seq"
    (package / "corpora" / "demo").mkdir(parents=True)
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = partial(resolve_root, package=package)
    assert found("data/demo") == package / "corpora" / "demo"
    (tmp_path / "site" / "data" / "demo").mkdir(parents=True)
    assert found("data/demo") == tmp_path / "site" / "data" / "demo"
    (elsewhere / "data" / "demo").mkdir(parents=True)
    assert found("data/demo") == elsewhere / "data" / "demo"
    assert found("data/other") == elsewhere / "data" / "other"
    assert found(str(tmp_path / "no")) == tmp_path / "no"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"max_source_length": 1}, "data.max_source_length=1"),
        ({"max_target_length": -5}, "data.max_target_length=-5"),
        ({"max_length_ratio": 0.5}, "data.max_length_ratio=0.5"),
        ({"max_length_ratio": float("nan")}, "data.max_length_ratio=nan"),
        ({"encoding_errors": "ignore"}, "data.encoding_errors=ignore"),
    ],
)
def test_wrong_settings(values: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        DataConfig(**values)
