"""Records that cannot be read: refused by default, or left out on both sides, counted and named."""

import gzip
import json
from pathlib import Path

import pytest

from seq2seq.data.corpus import CorpusConfig, read_examples
from seq2seq.data.unreadable import UnreadableRecords
from seq2seq.errors import UserError

COUNT = 400
BAD = {7: b'{"source": "a", "target": null}', 90: b'{"source": "a", "target": "caf\xe9"}', 301: b'{"source": "a'}


def corpora(folder: Path, bad: dict[str, dict[int, bytes]]) -> dict[str, CorpusConfig]:
    """The same pairs in each format, with other bytes in some lines."""
    sides = [[f"s{i} é".encode(), f"t{i} 好".encode()] for i in range(COUNT)]
    lines = {
        "src": [side[0] for side in sides],
        "tgt": [side[1] for side in sides],
        "tsv": [b"\t".join(side) for side in sides],
        "jsonl": [json.dumps({"source": s.decode(), "target": t.decode()}).encode() for s, t in sides],
    }
    for name, replaced in bad.items():
        for index, line in replaced.items():
            lines[name][index] = line
    for name in ("src", "tgt", "tsv"):
        (folder / name).with_suffix("." + name).write_bytes(b"".join(line + b"\n" for line in lines[name]))
    with gzip.open(folder / "jsonl.jsonl.gz", "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines["jsonl"]))
    return {
        "parallel": CorpusConfig(source="src.src", target="tgt.tgt"),
        "tsv": CorpusConfig(path="tsv.tsv"),
        "jsonl": CorpusConfig(path="jsonl.jsonl.gz"),
    }


@pytest.mark.parametrize(
    ("kind", "bad", "left_out", "named"),
    [
        ("jsonl", {"jsonl": BAD}, [7, 90, 301],
         ["gz:8: field 'target' contains a JSON null", "gz:91: not UTF-8: byte 0xe9 in column 31", "gz:302: not JSON"]),
        ("tsv", {"tsv": {3: b"one column", 5: b"a\t\xff"}}, [3, 5],
         ["tsv:4: 1 column(s)", "tsv:6: not UTF-8: byte 0xff"]),
        ("parallel", {"src": {11: b"\xc3"}, "tgt": {11: b"\xff", 399: b"ab\xfe"}}, [11, 399],
         ["src.src:12: not UTF-8: byte 0xc3 in column 1", "tgt.tgt:400: not UTF-8: byte 0xfe in column 3"]),
    ],
)  # fmt: skip
def test_they_are_left_out_on_both_sides_and_named(
    tmp_path: Path, kind: str, bad: dict[str, dict[int, bytes]], left_out: list[int], named: list[str]
) -> None:
    corpus = corpora(tmp_path, bad)[kind]
    with pytest.raises(UserError, match=r":\d+: "):
        list(read_examples(corpus, tmp_path, "data.train"))
    unreadable = UnreadableRecords()
    examples = list(read_examples(corpus, tmp_path, "data.train", unreadable=unreadable))
    expected = [(f"s{i} é", f"t{i} 好") for i in range(COUNT) if i not in left_out]
    assert [(example.source, example.target) for example in examples] == expected
    assert unreadable.count == len(left_out)
    assert [words in message for words, message in zip(named, unreadable.named, strict=True)] == [True] * len(named)


def test_more_than_one_percent_stops_all_the_same(tmp_path: Path) -> None:
    for count, stops in ((4, False), (5, True)):
        corpus = corpora(tmp_path, {"tsv": dict.fromkeys(range(count), b"x")})["tsv"]
        unreadable = UnreadableRecords()
        if not stops:
            assert len(list(read_examples(corpus, tmp_path, "data.train", unreadable=unreadable))) == COUNT - count
            continue
        with pytest.raises(UserError, match=r"data\.train: 5 of 400 records cannot be read.*1%.*\n  .*tsv:1: 1 column"):
            list(read_examples(corpus, tmp_path, "data.train", unreadable=unreadable))


def test_ten_are_named() -> None:
    unreadable = UnreadableRecords()
    records = [UserError(str(i)) if i < 15 else i for i in range(2000)]
    assert list(unreadable.leave_out(records, "data.train")) == list(range(15, 2000))
    assert (unreadable.count, unreadable.named) == (15, [str(i) for i in range(10)])


def test_without_errors_nothing_is_counted(tmp_path: Path) -> None:
    for corpus in corpora(tmp_path, {}).values():
        unreadable = UnreadableRecords()
        assert len(list(read_examples(corpus, tmp_path, "data.train", unreadable=unreadable))) == COUNT
        assert unreadable == UnreadableRecords()
