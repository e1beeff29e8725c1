import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from seq2seq.data import prepare as module
from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.data.fingerprints import file_state
from seq2seq.data.prepare import PreparedData, file_fingerprints, is_prepared, open_corpus, prepare
from seq2seq.data.report import report_lines
from seq2seq.data.store import TokenStore
from seq2seq.errors import TrainingError, UserError
from seq2seq.tokenizers.base import LINE_BREAK_ID
from seq2seq.tokenizers.config import LineBreaks, TokenizerConfig, TokenizerKind

TOKENIZER = TokenizerConfig(kind=TokenizerKind.word, vocab_size=500)


def corpus(folder: Path, name: str, count: int) -> CorpusConfig:
    source = "".join(f"satz nummer {i} von {name}\n" for i in range(count))
    target = "".join(f"sentence number {i} of {name}\n" for i in range(count))
    (folder / f"{name}.de").write_text(source)
    (folder / f"{name}.en").write_text(target)
    return CorpusConfig(source=f"{name}.de", target=f"{name}.en")


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    root = tmp_path / "data"
    root.mkdir()
    sets = {"a": corpus(root, "a", 7), "b": corpus(root, "b", 3)}
    return DataConfig(root=str(root), train=corpus(root, "t", 50), valid=corpus(root, "v", 5), test=sets)


def run(data: DataConfig, cache: Path, lines: list[str] | None = None, **changes) -> PreparedData:
    tokenizer = changes.pop("tokenizer", TOKENIZER)
    log = (lines if lines is not None else []).append
    return prepare(data, tokenizer, cache_root=cache, seed=changes.pop("seed", 1), log=log, **changes)


def test_everything_is_there_and_aligned(data: DataConfig, tmp_path: Path) -> None:
    made = run(data, tmp_path / "cache")
    assert [len(made.train), len(made.valid), *map(len, made.test.values())] == [50, 5, 7, 3]
    assert list(made.test) == ["a", "b"]
    assert made.test["b"].source_text(2) == "satz nummer 2 von b"
    assert made.test["b"].target_text(2) == "sentence number 2 of b"
    assert made.train.source_ids[9].tolist() == made.tokenizers.source.encode("satz nummer 9 von t")
    assert made.train.target_ids[9].tolist() == made.tokenizers.target.encode("sentence number 9 of t")
    assert list(made.reports) == ["train", "valid", "test.a", "test.b"]
    assert json.loads(json.dumps(asdict(made.reports["test.b"])))["kept"] == 3
    assert "train: 50 of 50 examples" in report_lines(made.reports)[0]
    assert set(made.fingerprints) == {
        "tokenizer",
        *(f"data.{split}.{side}" for split in ("train", "valid", "test.a", "test.b") for side in ("source", "target")),
    }


def test_fingerprints_of_files_are_known_without_preparing(data: DataConfig, tmp_path: Path) -> None:
    found = file_fingerprints(data, tmp_path / "elsewhere")
    made = run(data, tmp_path / "cache").fingerprints
    assert found == {key: value for key, value in made.items() if key in found}
    assert set(made) - set(found) == {"tokenizer"}


def test_second_time_only_opens(data: DataConfig, tmp_path: Path) -> None:
    first, lines = run(data, tmp_path / "cache"), []
    second = run(data, tmp_path / "cache", lines)
    assert lines == []
    assert second.train.folder == first.train.folder
    assert second.fingerprints == first.fingerprints


def test_what_matters_makes_a_new_store(data: DataConfig, tmp_path: Path) -> None:
    first = run(data, tmp_path / "cache")
    data.drop_identical = True
    second = run(data, tmp_path / "cache")
    assert second.train.folder != first.train.folder
    assert second.valid.folder == first.valid.folder  # no filter concerns it
    data.max_source_length = 4
    third = run(data, tmp_path / "cache")
    assert third.valid.folder != first.valid.folder
    assert third.fingerprints == first.fingerprints
    data.max_source_length = 256
    with open(Path(data.root) / "t.de", "a") as file, open(Path(data.root) / "t.en", "a") as other:
        file.write("neu\n")
        other.write("new\n")
    fourth = run(data, tmp_path / "cache")
    assert len(fourth.train) == 51
    changed = {key for key in first.fingerprints if first.fingerprints[key] != fourth.fingerprints[key]}
    assert changed == {"data.train.source", "data.train.target", "tokenizer"}


def test_line_breaks_concern_records_only(data: DataConfig, tmp_path: Path) -> None:
    first = run(data, tmp_path / "cache")
    spaces = replace(TOKENIZER, line_breaks=LineBreaks.space)
    run(data, tmp_path / "cache", lines := [], tokenizer=spaces)
    assert lines == []  # two files of lines: the same tokenizer, and not trained again
    records = [{"source": f"satz {i}\r\nvon t", "target": f"line {i}\nof t"} for i in range(20)]
    path = Path(data.root) / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = replace(data, train=CorpusConfig(path="t.jsonl"))
    kept = run(data, tmp_path / "cache")
    spaced = run(data, tmp_path / "cache", tokenizer=spaces)
    assert len({made.fingerprints["tokenizer"] for made in (first, kept, spaced)}) == 3
    assert kept.train.target_ids[3].tolist().count(LINE_BREAK_ID) == 1
    assert kept.tokenizers.target.decode(kept.train.target_ids[3]) == "line 3\nof t"
    assert kept.tokenizers.source.decode(kept.train.source_ids[3]) == "satz 3\nvon t"
    assert spaced.tokenizers.source.decode(spaced.train.source_ids[3]) == "satz 3 von t"
    assert kept.train.source_text(3) == "satz 3\r\nvon t"
    again = run(data, tmp_path / "cache", lines := [])
    assert lines == []
    assert again.fingerprints == kept.fingerprints


def test_place_and_name_of_the_files_do_not_matter(data: DataConfig, tmp_path: Path) -> None:
    first = run(data, tmp_path / "cache")
    shutil.copytree(data.root, tmp_path / "moved")
    data.root = str(tmp_path / "moved")
    (tmp_path / "moved" / "t.de").rename(tmp_path / "moved" / "renamed.de")
    data.train.source = "renamed.de"
    lines: list[str] = []
    assert run(data, tmp_path / "cache", lines).fingerprints == first.fingerprints
    assert lines == []


def test_damaged_cache_is_built_again(data: DataConfig, tmp_path: Path) -> None:
    first = run(data, tmp_path / "cache")
    (first.train.folder / "source.ids").write_bytes(b"")
    for path in (tmp_path / "cache" / "tokenizers").glob("*/tokenizer.json"):
        path.write_text("{")
    lines: list[str] = []
    again = run(data, tmp_path / "cache", lines)
    assert len(again.train) == 50
    assert lines == [line for line in lines if "Training the tokenizer" in line or "data.train" in line]
    assert len(lines) == 2


def test_a_store_with_a_flipped_bit_is_built_again(data: DataConfig, tmp_path: Path) -> None:
    """The highest bit of an id: beyond the vocabulary, it would end the training in the middle of an epoch."""
    path = run(data, tmp_path / "cache").train.folder / "source.ids"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 0x80]))
    lines: list[str] = []
    assert run(data, tmp_path / "cache", lines).train.folder == path.parent
    assert lines == ["Encoding data.train."]
    assert path.read_bytes() == content


def test_given_tokenizers_are_used(data: DataConfig, tmp_path: Path) -> None:
    other = run(data, tmp_path / "one", tokenizer=TokenizerConfig(kind=TokenizerKind.char, vocab_size=300))
    made = run(data, tmp_path / "two", tokenizers=other.tokenizers)
    assert made.fingerprints == other.fingerprints
    assert not (tmp_path / "two" / "tokenizers").exists()


@pytest.mark.parametrize("split", ["valid", "test.a"])
def test_wrong_evaluation_files_are_refused_before_the_tokenizer_is_trained(
    data: DataConfig, tmp_path: Path, split: str
) -> None:
    (Path(data.root) / f"{split.removeprefix('test.')[0]}.en").write_text("one line\n")
    lines: list[str] = []
    with pytest.raises(UserError, match=rf"data\.{split}\.target=.* has 1:"):
        run(data, tmp_path / "cache", lines)
    assert lines == []


def test_wrong_training_files_are_refused(data: DataConfig, tmp_path: Path) -> None:
    (Path(data.root) / "t.en").write_text("one line\n")
    with pytest.raises(UserError, match=r"data\.train\.source=.* has 50 lines, data\.train\.target=.* has 1:"):
        run(data, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tokenizers").glob("[!.]*"))


def test_pipe_is_no_corpus(data: DataConfig, tmp_path: Path) -> None:
    os.mkfifo(Path(data.root) / "pipe")
    data.train.source = "pipe"
    with pytest.raises(UserError, match=r"data\.train\.source=.*pipe: a pipe or device"):
        run(data, tmp_path / "cache")


def test_file_that_changes_meanwhile_is_refused(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(*args, **kwargs):
        os.utime(Path(data.root) / "t.en", (1, 1))
        return original(*args, **kwargs)

    original = module.write_store
    monkeypatch.setattr(module, "write_store", change)
    with pytest.raises(UserError, match=r"t\.en was changed while it was being read"):
        run(data, tmp_path / "cache")


def _prepare_in_process(root: str, data: DataConfig, results) -> None:
    made = run(data, Path(root))
    results.put((str(made.train.folder), made.fingerprints, len(made.train)))


def test_two_processes_at_once(data: DataConfig, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tmp_path / "cache"), data, results)
    processes = [context.Process(target=_prepare_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == found[2]
    names = [path.name for path in (tmp_path / "cache" / "stores").iterdir() if path.name[0] != "."]
    assert len(names) == 4
    assert not any("partial" in name for name in names)


KILLED = """
import sys, time
from pathlib import Path
from seq2seq.data import prepare
from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.data.store import StoreWriter
from seq2seq.tokenizers.pair import TokenizerConfig, TokenizerKind
add_texts, lines = StoreWriter.add_texts, []
def slow(self, examples):
    if lines[-1] == "Encoding data.train.":  # its ids are written
        print("encoding", flush=True)
        time.sleep(60)
    add_texts(self, examples)
StoreWriter.add_texts = slow
data = DataConfig(root=sys.argv[1], train=CorpusConfig("t.de", "t.en"), valid=CorpusConfig("v.de", "v.en"))
tokenizer = TokenizerConfig(kind=TokenizerKind.word, vocab_size=500)
prepare.prepare(data, tokenizer, cache_root=Path(sys.argv[2]), seed=1, log=lines.append)
"""


def test_killed_preparation_is_not_taken_for_complete(data: DataConfig, tmp_path: Path) -> None:
    data.test = {}
    command = [sys.executable, "-c", KILLED, data.root, str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "encoding\n"
        process.send_signal(signal.SIGKILL)
    assert list((tmp_path / "cache" / "stores").glob("*.partial"))
    made = run(data, tmp_path / "cache")
    assert len(made.train) == 50
    assert not list((tmp_path / "cache" / "stores").glob("*.partial"))


def test_open_corpus_is_aligned_and_leaves_nothing(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(data, tmp_path / "cache")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (Path(data.root) / "x.tsv").write_text("a\tb\n\t\nc d e f g h\td\n")
    data.max_source_length = 4
    data.drop_identical = True
    store = open_corpus(CorpusConfig(path="x.tsv"), made.tokenizers, data, key="data.test.x")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert len(store) == 3
    assert store.source_text(2) == "c d e f g h"
    assert store.source_lengths.tolist() == [2, 1, 4]
    with pytest.raises(UserError, match=r"data\.test\.y\.path=no\.tsv"):
        open_corpus(CorpusConfig(path="no.tsv"), made.tokenizers, data, key="data.test.y")


def test_hashes_are_remembered_by_size_and_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "x", tmp_path / "cache" / "hashes.json"
    path.write_bytes(b"abc")
    os.utime(path, (time.time() - 100,) * 2)
    digest = file_state(path, "x", cache).sha256
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    entries = json.loads(cache.read_text())
    assert entries == {str(path): [3, path.stat().st_mtime_ns, digest]}
    entries[str(path)][2] = "remembered"
    cache.write_text(json.dumps(entries))
    assert file_state(path, "x", cache).sha256 == "remembered"
    path.write_bytes(b"abd")
    assert file_state(path, "x", cache).sha256 != "remembered"
    cache.write_text("{half")
    assert file_state(path, "x", cache).size == 3


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    file_state(tmp_path / "x", "x", tmp_path / "hashes.json")
    assert not (tmp_path / "hashes.json").exists()


def test_whether_it_is_prepared_is_known_without_preparing(data: DataConfig, tmp_path: Path) -> None:
    settings = {"cache_root": tmp_path / "cache", "seed": 1}
    assert not is_prepared(data, TOKENIZER, **settings)
    assert not (tmp_path / "cache" / "tokenizers").exists()
    run(data, tmp_path / "cache")
    assert is_prepared(data, TOKENIZER, **settings)
    assert not is_prepared(replace(data, max_source_length=9), TOKENIZER, **settings)
    assert not is_prepared(data, replace(TOKENIZER, vocab_size=400), **settings)


def test_a_store_too_large_to_be_read_first_is_verified_later_and_built_again(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenStore, "VERIFY_ON_OPEN_BYTES", 1000)  # only the training set is larger
    made = run(data, tmp_path / "cache")
    made.verify()
    path = made.train.folder / "target.text"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 0x01]))
    lines: list[str] = []
    opened = run(data, tmp_path / "cache", lines)
    assert lines == []
    drawing = {"seed": 1, "epoch": 0, "folder": tmp_path / "epochs"}
    opened.train.resampled(opened.tokenizers, **drawing)
    with pytest.raises(TrainingError, match="changed on disk since it was written"):
        opened.verify()
    assert not is_prepared(data, TOKENIZER, cache_root=tmp_path / "cache", seed=1)
    made = run(data, tmp_path / "cache", lines)
    made.verify()
    assert lines == ["Encoding data.train."]
    assert path.read_bytes() == content
    drawn = made.train.resampled(made.tokenizers, **drawing)  # words have one segmentation
    assert drawn.target_ids[len(drawn) - 1].tolist() == made.train.target_ids[len(drawn) - 1].tolist()


def test_a_store_too_large_to_be_read_first_that_cannot_be_opened_is_built_again(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenStore, "VERIFY_ON_OPEN_BYTES", 1000)
    path = run(data, tmp_path / "cache").train.folder / "source.ids.offsets"
    content = path.read_bytes()
    path.write_bytes(content[:15] + b"\x01" + content[16:])  # the first sequence ends after all others
    lines: list[str] = []
    run(data, tmp_path / "cache", lines)
    assert lines == ["Encoding data.train."]
    assert path.read_bytes() == content
