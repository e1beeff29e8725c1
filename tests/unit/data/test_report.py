"""The figures of a prepared corpus, each counted by hand."""

from dataclasses import asdict
from pathlib import Path

from seq2seq.data.corpus import CorpusConfig, DataConfig, OnLong
from seq2seq.data.prepare import prepare
from seq2seq.data.report import SplitReport, report_lines
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind


def test_every_figure_of_a_split(tmp_path: Path) -> None:
    """Words are tokens: four pairs to train on, one of them cut, one blank on a side; two to validate on."""
    files = {
        "train.s": ["a b c", "a b c a b c", "a", "b c"], "train.t": ["c b a", "c b", "a", " "],
        "valid.s": ["a x y", "\u2581 a"], "valid.t": ["a", "z"],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    data = DataConfig(
        root=str(tmp_path), train=CorpusConfig(source="train.s", target="train.t"),
        valid=CorpusConfig(source="valid.s", target="valid.t"), max_source_length=5, on_long=OnLong.truncate,
    )  # fmt: skip
    tokenizer = TokenizerConfig(kind=TokenizerKind.word, vocab_size=20)
    reports = prepare(data, tokenizer, cache_root=tmp_path / "cache", seed=1, log=lambda line: None).reports
    train, valid = reports["train"], reports["valid"]
    assert (train.read, train.kept, valid.read, valid.kept) == (4, 3, 2, 2)
    assert sum(train.dropped.values()) == 1
    source = asdict(train.source)
    lengths = source.pop("lengths")
    assert source == {
        "limit": 5, "blank": 0, "truncated": 1, "kept_tokens": 3 + 6 + 1, "cut_tokens": 2, "tokens": 3 + 6 + 1,
        "unknown": 0, "byte_pieces": 0, "meta_spaces": 0,
    }  # fmt: skip
    assert (lengths["median"], lengths["longest"]) == (4, 7), "with the end of sentence, before it was cut"
    assert (train.target.blank, train.target.tokens, train.target.lengths["longest"]) == (1, 3 + 2 + 1, 4)
    assert (valid.source.unknown, valid.source.tokens, valid.source.meta_spaces) == (3, 3 + 2, 1)
    assert (valid.target.unknown, valid.target.tokens) == (1, 2)
    assert f"source: 5 tokens; length median {valid.source.lengths['median']}" in report_lines(reports)[4]
    assert "60.000% unknown" in report_lines(reports)[4]


def test_a_report_comes_back_from_its_file() -> None:
    split = SplitReport(read=3, kept=2, dropped={"blank": 1})
    split.source.tokens = 9
    assert SplitReport.from_dict(asdict(split)) == split


def test_nothing_was_counted_before_there_was_anything() -> None:
    empty = SplitReport()
    assert {value for value in asdict(empty.source).values() if value != {}} == {0}
    assert (empty.read, empty.kept, report_lines({})) == (0, 0, [])
