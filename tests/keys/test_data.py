"""Keys of `data`: which texts a model is trained on, how long they are, and what it is scored against."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq.data.prepare import PreparedData
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError

Prepare = Callable[..., PreparedData]
Evaluate = Callable[..., dict[str, Any]]

WORDS = ("tokenizer=word", "tokenizer.word_tokenizer=whitespace")  # as many tokens as words, and the end of sentence
TRAIN = [
    ("a b c", "x y z"),
    ("a b c", "x y z"),  # the same once more
    ("a same text", "a same text"),
    ("a", "x y z v w"),  # one word to five
    ("a b c d e f g h", "x y z v"),  # a source of eight words
    ("a b c d", "x y z v w u t s"),  # a target of eight
]
VALID = [("a b c d e f g h", "x y z"), ("a", "x y z v w u t s")]
TEST = [("b c d e f g h a", "y z x"), ("c", "s t u v w x y z")]


def write(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def write_pairs(folder: Path, split: str, pairs: list[tuple[str, str]]) -> None:
    write(folder / f"{split}.src", [source for source, _ in pairs])
    write(folder / f"{split}.tgt", [target for _, target in pairs])


def parallel(folder: Path) -> list[str]:
    """Overrides that name the files of `write_pairs`."""
    sides = (("source", "src"), ("target", "tgt"))
    overrides = [f"data.{split}.{side}={folder}/{split}.{end}" for split in ("train", "valid") for side, end in sides]
    return [*WORDS, *overrides, *typed(folder, "extra")]


def typed(folder: Path, name: str) -> list[str]:
    """Overrides that add the files of `write_pairs` as a test set."""
    return [f"+data.test.{name}.source={folder}/{name}.src", f"+data.test.{name}.target={folder}/{name}.tgt"]


def stores(prepared: PreparedData) -> dict[str, TokenStore]:
    return {"train": prepared.train, "valid": prepared.valid, **prepared.test}


def texts(store: TokenStore) -> list[tuple[str, str]]:
    return [(store.source_text(i), store.target_text(i)) for i in range(len(store))]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    for split, pairs in (("train", TRAIN), ("valid", VALID), ("extra", TEST)):
        write_pairs(folder, split, pairs)
    return parallel(folder)


@pytest.fixture(scope="module", autouse=True)
def plain(prepare: Prepare, corpora: list[str]) -> PreparedData:
    """The data prepared with the defaults, before all others."""
    return prepare(*corpora)


@pytest.fixture(scope="module")
def records(prepare: Prepare, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a JSONL file for each split, with five texts in a record that name split and field.

    They are prepared with defaults, before all others.
    """
    folder = tmp_path_factory.mktemp("records")
    for split in ("train", "valid", "extra"):
        found = [
            {name: f"{split} {name} {i}" for name in ("source", "target", "first", "second", "third")}
            for i in range(3)
        ]  # fmt: skip
        write(folder / f"{split}.jsonl", [json.dumps(record) for record in found])
    paths = [f"data.{split}.path={folder}/{split}.jsonl" for split in ("train", "valid")]
    overrides = [*WORDS, "data=records", *paths, f"+data.test.extra.path={folder}/extra.jsonl"]
    prepare(*overrides)
    return overrides


def test_each_corpus_is_read_from_its_two_files(plain: PreparedData) -> None:
    assert {name: texts(store) for name, store in stores(plain).items()} == {
        "train": TRAIN, "valid": VALID, "extra": TEST,
    }  # fmt: skip


def test_relative_files_lie_below_root(prepare: Prepare, tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for split in ("train", "valid", "extra"):
            write_pairs(tmp_path / folder, split, [(f"{folder} {split}", "text")])
    overrides = [override.replace(f"{tmp_path}/", "") for override in parallel(tmp_path)]
    prepared = prepare(*overrides, f"data.root={tmp_path}/there")
    assert [texts(store) for store in stores(prepared).values()] == [
        [(f"there {split}", "text")] for split in ("train", "valid", "extra")
    ]


def test_each_corpus_is_read_from_its_path(prepare: Prepare, records: list[str]) -> None:
    for split, store in stores(prepare(*records)).items():
        assert texts(store) == [(f"{split} source {i}", f"{split} target {i}") for i in range(3)]


@pytest.mark.parametrize("side", ["source", "target"])
def test_each_corpus_has_the_field_named(prepare: Prepare, records: list[str], side: str) -> None:
    fields = {"train": "first", "valid": "second", "extra": "third"}
    overrides = [f"data.train.{side}_field=first", f"data.valid.{side}_field=second"]
    prepared = prepare(*records, *overrides, f"+data.test.extra.{side}_field=third")
    for split, store in stores(prepared).items():
        names = {"source": "source", "target": "target", side: fields[split]}
        assert texts(store) == [(f"{split} {names['source']} {i}", f"{split} {names['target']} {i}") for i in range(3)]


def test_the_columns_of_a_tsv_file(prepare: Prepare, records: list[str], tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["0\t1\tthe target\tthe source"])
    named = ["data.train.source_field=3", "data.train.target_field=2"]
    prepared = prepare(*records, f"data.train.path={tmp_path}/train.tsv", *named)
    assert texts(prepared.train) == [("the source", "the target")]


def test_further_references_come_from_the_field_named(prepare: Prepare, records: list[str]) -> None:
    named = ["data.valid.references_field=first", "+data.test.extra.references_field=second"]
    found = stores(prepare(*records, *named, "data.train.references_field=third"))
    assert found["train"].references(1) == ("train target 1", "train third 1")
    assert found["valid"].references(1) == ("valid target 1", "valid first 1")
    assert found["extra"].references(1) == ("extra target 1", "extra second 1")


def test_training_examples_without_the_references_named_are_refused(prepare: Prepare, records: list[str]) -> None:
    with pytest.raises(UserError, match=r"no record has the field that data\.train\.references_field=fourth names"):
        prepare(*records, "data.train.references_field=fourth")


def test_validation_is_scored_against_further_references(saying: Path) -> None:
    """Its outputs are the further reference word by word, and share nothing with the target."""
    results = json.loads((saying / "results.json").read_text(encoding="utf-8"))
    assert results["valid"]["bleu"] == pytest.approx(100)


def test_a_test_set_typed_for_evaluate_is_read_as_named(evaluate: Evaluate, saying: Path, tmp_path: Path) -> None:
    said = (saying.parent / "train.tgt").read_text(encoding="utf-8").split("\n")[0]
    record = {"source": "none", "target": "none", "first": "the cat", "second": "The dogs sat.", "third": said}
    write(tmp_path / "mine.jsonl", [json.dumps(record)])
    named = ["path=mine.jsonl", "source_field=first", "target_field=second", "references_field=third"]
    mine = [f"+data.test.mine.{each}" for each in named]
    results = evaluate(f"data.root={tmp_path}", *mine, "metrics.names=[rouge1]", "metrics.summary_statistics=true")
    assert list(results["test"]) == ["mine"]
    scores = {name: found["score"] for name, found in results["test"]["mine"].items()}
    assert scores["rouge1"] == pytest.approx(100)  # the best of both references
    of_target = 100 * 2 * 2 / (8 + 3)  # the output has eight words, and two of the target's three
    assert scores["rouge1_mean"] == pytest.approx((100 + of_target) / 2)
    assert scores["novel_1grams"] == pytest.approx(100 * 7 / 8)  # of the eight words said, only `the` is known


@pytest.mark.parametrize(
    ("filter", "dropped"),
    [
        ("data.drop_duplicates=true", 1),
        ("data.drop_identical=true", 2),
        ("data.max_length_ratio=4.9", 3),
    ],
)
def test_filters_drop_their_training_examples_only(
    prepare: Prepare, corpora: list[str], plain: PreparedData, filter: str, dropped: int
) -> None:
    assert texts(plain.train) == TRAIN
    prepared = prepare(*corpora, filter)
    assert texts(prepared.train) == TRAIN[:dropped] + TRAIN[dropped + 1 :]
    assert (texts(prepared.valid), texts(prepared.test["extra"])) == (VALID, TEST)


@pytest.mark.parametrize(("side", "dropped"), [("source", 4), ("target", 5)])
def test_long_texts_are_dropped_in_training_and_cut_elsewhere(
    prepare: Prepare, corpora: list[str], side: str, dropped: int
) -> None:
    prepared = prepare(*corpora, f"data.max_{side}_length=8")
    assert texts(prepared.train) == TRAIN[:dropped] + TRAIN[dropped + 1 :]
    limits = {"source": 256, "target": 256, side: 8}
    for store, pairs in ((prepared.valid, VALID), (prepared.test["extra"], TEST)):
        lengths = [(len(source.split()) + 1, len(target.split()) + 1) for source, target in pairs]
        assert store.source_lengths.tolist() == [min(length, limits["source"]) for length, _ in lengths]
        assert store.target_lengths.tolist() == [min(length, limits["target"]) for _, length in lengths]


def test_long_training_texts_can_be_cut_instead(prepare: Prepare, corpora: list[str]) -> None:
    limits = ("data.max_source_length=8", "data.max_target_length=7")
    assert texts(prepare(*corpora, *limits).train) == TRAIN[:4]
    prepared = prepare(*corpora, *limits, "data.on_long=truncate")
    assert texts(prepared.train) == TRAIN
    assert prepared.tokenizers.source.decode(prepared.train.source_ids[4]) == "a b c d e f g"
    assert prepared.tokenizers.target.decode(prepared.train.target_ids[5]) == "x y z v w u"


def test_texts_beyond_the_limits_are_cut_in_evaluations(evaluate: Evaluate, tmp_path: Path) -> None:
    """Their loss is that of texts which were cut by hand, on both sides."""
    source, target = "dogs barked loudly the cat sleeps", "Two cats were barking, loudly. The dogs slept!"
    write_pairs(tmp_path, "whole", [(source, target)])
    write_pairs(tmp_path, "cut", [(source[: source.index(" the")], target[: target.index(" barking")])])
    sets = [*typed(tmp_path, "whole"), *typed(tmp_path, "cut")]
    found = evaluate(*sets, "data.max_source_length=4", "data.max_target_length=4", "metrics.names=[]")["test"]
    assert found["whole"]["loss"]["score"] == pytest.approx(found["cut"]["loss"]["score"], rel=1e-5)


def test_the_longest_source_is_what_a_generator_reads(saying: Path) -> None:
    from seq2seq import load

    generator = load(saying, overrides=["data.max_source_length=4"])
    ((output, *_),) = generator.generate_nbest(["dogs barked loudly the cat sleeps"])
    assert output.source_tokens == ["dogs", "barked", "loudly", "</s>"]
    assert generator.truncated == 1


def test_bytes_that_are_no_text_are_refused_or_replaced(prepare: Prepare, tmp_path: Path) -> None:
    for split in ("train", "valid", "extra"):
        write_pairs(tmp_path, split, [("good", "text"), ("bad \udcff byte", "text")])
    with pytest.raises(UserError, match=r"\.src:2: not UTF-8.*set data\.encoding_errors=replace"):
        prepare(*parallel(tmp_path))
    prepared = prepare(*parallel(tmp_path), "data.encoding_errors=replace")
    for store in stores(prepared).values():
        assert texts(store)[1][0] == "bad \ufffd byte"


def test_bytes_that_are_no_text_are_replaced_in_evaluations(evaluate: Evaluate, tmp_path: Path) -> None:
    write_pairs(tmp_path, "mine", [("the cat", "Two cats \udcff slept!")])
    mine = typed(tmp_path, "mine")
    scores = evaluate(*mine, "data.encoding_errors=replace", "metrics.names=[rouge1]")["test"]["mine"]
    assert scores["rouge1"]["score"] == pytest.approx(100 * 2 * 3 / (8 + 3))  # its three words are said, among eight


def test_languages_name_files(prepare: Prepare, tmp_path: Path) -> None:
    """As the shipped configurations of corpora do."""
    for split in ("train", "valid", "test"):
        for language in ("de", "en", "nds", "fy"):
            write(tmp_path / f"{split}.{language}", [f"{split} {language}"])
    languages = ["data.source_language=nds", "data.target_language=fy"]
    prepared = prepare(*WORDS, "data=iwslt14", f"data.root={tmp_path}", *languages)
    assert [texts(store) for store in stores(prepared).values()] == [
        [(f"{split} nds", f"{split} fy")] for split in ("train", "valid", "test")
    ]


def test_check_compares_letters_with_the_languages(corpora: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from seq2seq.cli import commands

    languages = ["data.source_language=ru", "data.target_language=el"]
    with pytest.raises(UserError):
        commands.run("check", [*corpora, "model.tie_embeddings=decoder", *languages, "format=json"])
    found = {each["key"]: each["message"] for each in json.loads(capsys.readouterr().out)["diagnostics"]}
    assert "data.source_language=ru is written in CYRILLIC" in found["data.train.source"]
    assert "data.target_language=el is written in GREEK" in found["data.train.target"]


def test_the_target_language_chooses_how_scores_count(evaluate: Evaluate, saying: Path, tmp_path: Path) -> None:
    from sacrebleu.metrics import BLEU

    write_pairs(tmp_path, "mine", [("the cat", "Two cats were barking, loudly. The dogs slept!")])
    mine = typed(tmp_path, "mine")
    scores = evaluate(*mine, "data.target_language=th", "metrics.names=[bleu,rouge1]")["test"]["mine"]
    outputs = (saying / "evaluations" / "best" / "mine.txt").read_text(encoding="utf-8").splitlines()
    expected = BLEU(tokenize="char").corpus_score(outputs, [["Two cats were barking, loudly. The dogs slept!"]])
    assert scores["bleu"]["score"] == pytest.approx(expected.score)
    assert "tok:char" in scores["bleu"]["signature"]
    assert "stem:no" in scores["rouge1"]["signature"]


def test_unreadable_records_stop_or_are_left_out(prepare: Prepare, tmp_path: Path) -> None:
    """In training and validation; a test set is never shortened, as its outputs stay aligned with its files."""
    pairs = [(f"a{i}", f"x{i}") for i in range(200)]
    for split in ("train", "valid", "extra"):
        write_pairs(tmp_path, split, pairs)
    broken = [("a", "b\udcff"), *pairs[1:]]
    for split in ("train", "valid"):
        write_pairs(tmp_path, split, broken)
    with pytest.raises(UserError, match=r"\.tgt:1: not UTF-8"):
        prepare(*parallel(tmp_path))
    prepared = prepare(*parallel(tmp_path), "data.on_error=skip")
    for store in (prepared.train, prepared.valid):
        assert texts(store) == pairs[1:]
        assert (store.report.read, store.report.kept, store.report.dropped) == (200, 199, {"unreadable": 1})
        (message,) = store.report.unreadable
        assert ".tgt:1: not UTF-8: byte 0xff in column 2" in message
    assert texts(prepared.test["extra"]) == pairs
    write_pairs(tmp_path, "extra", broken)
    with pytest.raises(UserError, match=r"extra\.tgt:1: not UTF-8"):
        prepare(*parallel(tmp_path), "data.on_error=skip")
