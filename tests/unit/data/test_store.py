import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from seq2seq.data.corpus import DataConfig, Example, OnLong
from seq2seq.data.encode import write_store
from seq2seq.data.ragged import DamagedStoreError, RaggedArray
from seq2seq.data.report import SplitReport, report_lines
from seq2seq.data.store import StoreWriter, TokenStore, id_dtype, is_store, pack, read_meta
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import Tokenizers, train_tokenizers

TEXTS = [
    ("ein Haus am See", "a house by the lake"),
    ("", ""),
    ("zwei Hunde \u2581 und\neine Katze 🐈", "two dogs and a cat"),
    ("  ", "blank source"),
    ("kurz", "a rather long target beyond the limit of tokens"),
]
EXAMPLES = [Example(s, t, (t, *[f"{t} {i}" for i in range(n)])) for n, (s, t) in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    config = TokenizerConfig(kind=TokenizerKind.char, vocab_size=300, joint=False)
    sources, targets = zip(*TEXTS, strict=True)
    return train_tokenizers(lambda: iter(sources), lambda: iter(targets), config, seed=1)


def make(folder: Path, tokenizers: Tokenizers, *, training: bool = False, **settings) -> TokenStore:
    folder.mkdir(exist_ok=True)
    write_store(folder, iter(EXAMPLES), tokenizers, DataConfig(**settings), training=training)
    return TokenStore(folder)


def test_evaluation_store_holds_every_example(tmp_path: Path, tokenizers: Tokenizers) -> None:
    store = make(tmp_path, tokenizers)
    assert len(store) == len(EXAMPLES)
    for number, example in enumerate(EXAMPLES):
        assert store.source_ids[number].tolist() == tokenizers.source.encode(example.source)
        assert store.target_ids[number].tolist() == tokenizers.target.encode(example.target)
        assert store.source_text(number) == example.source
        assert store.target_text(number) == example.target
        assert store.references(number) == example.references
    expected = [len(tokenizers.source.encode(e.source)) + 1 for e in EXAMPLES]
    assert store.source_lengths.tolist() == expected
    assert store.source_lengths.dtype == np.int32
    assert store.report.source.blank == 2
    assert store.report.source.meta_spaces == 1
    assert store.report.source.lengths["longest"] == max(expected)
    assert store.report.source.byte_pieces == sum(
        tokenizers.source.is_byte(i) for e in EXAMPLES for i in tokenizers.source.encode(e.source)
    )


def test_evaluation_truncates_ids_and_keeps_text(tmp_path: Path, tokenizers: Tokenizers) -> None:
    store = make(tmp_path, tokenizers, max_source_length=6, max_target_length=8)
    assert store.source_lengths.max() == 6
    assert store.target_lengths.max() == 8
    assert store.target_ids[4].tolist() == tokenizers.target.encode(TEXTS[4][1])[:7]
    assert store.target_text(4) == TEXTS[4][1]
    assert store.report.source.truncated == sum(len(tokenizers.source.encode(s)) > 5 for s, _ in TEXTS)
    assert store.report.target.truncated == sum(len(tokenizers.target.encode(t)) > 7 for _, t in TEXTS)
    assert store.report.kept == len(TEXTS)


def test_training_drops_and_counts(tmp_path: Path, tokenizers: Tokenizers) -> None:
    store = make(tmp_path / "a", tokenizers, training=True, max_target_length=30)
    assert [store.source_text(i) for i in range(len(store))] == [TEXTS[0][0], TEXTS[2][0]]
    assert store.references(1) == EXAMPLES[2].references
    assert store.report.read == 5
    assert store.report.dropped == {"empty on a side": 2, "too long": 1}
    assert store.report.read == store.report.kept + sum(store.report.dropped.values())
    store = make(tmp_path / "b", tokenizers, training=True, max_target_length=30, on_long=OnLong.truncate)
    assert len(store) == 3
    assert store.target_lengths[2] == 30
    assert store.report.target.truncated == 1


def test_length_just_at_the_limit_is_not_truncated(tmp_path: Path, tokenizers: Tokenizers) -> None:
    longest = max(len(tokenizers.source.encode(s)) for s, _ in TEXTS) + 1
    store = make(tmp_path, tokenizers, max_source_length=longest)
    assert store.report.source.truncated == 0
    assert store.source_lengths.max() == longest


@pytest.mark.parametrize(("count", "length"), [(10_000, 12), (30, 120_000)], ids=["many examples", "long examples"])
def test_a_corpus_of_several_chunks_is_whole_and_in_order(
    tmp_path: Path, tokenizers: Tokenizers, count: int, length: int
) -> None:
    """Only so many examples, and so many characters, are encoded at once."""
    texts = ["" if number % 7 == 0 else f"{number} ".ljust(length, "e") for number in range(count)]
    examples = (Example(text, text[::-1], (text[::-1],)) for text in texts)
    config = DataConfig(max_source_length=20, max_target_length=20, on_long=OnLong.truncate)
    write_store(tmp_path, examples, tokenizers, config, training=True)
    store = TokenStore(tmp_path)
    kept = [text for text in texts if text]
    assert len(store) == len(kept)
    for i, text in enumerate(kept):
        assert store.source_text(i) == text
        assert store.source_ids[i].tolist() == tokenizers.source.encode(text[:99])[:19]
        assert store.target_ids[i].tolist() == tokenizers.target.encode(text[:-99:-1])[:19]
    assert (store.report.read, store.report.kept) == (count, len(kept))


def test_empty_store(tmp_path: Path, tokenizers: Tokenizers) -> None:
    write_store(tmp_path, iter(()), tokenizers, DataConfig(), training=True)
    store = TokenStore(tmp_path)
    assert len(store) == 0
    assert store.source_lengths.shape == (0,)


@pytest.mark.parametrize("damage", ["no meta", "short", "missing", "newer", "not json", "no list"])
def test_damage_is_noticed(tmp_path: Path, tokenizers: Tokenizers, damage: str) -> None:
    make(tmp_path, tokenizers)
    meta = tmp_path / "meta.json"
    if damage == "no meta":
        meta.unlink()
    elif damage == "short":
        (tmp_path / "target.ids").write_bytes((tmp_path / "target.ids").read_bytes()[:-2])
    elif damage == "missing":
        (tmp_path / "references.text").unlink()
    elif damage == "newer":
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "format_version": 99}))
    else:
        meta.write_text("{" if damage == "not json" else "[]")
    assert not is_store(tmp_path)
    with pytest.raises(DamagedStoreError):
        TokenStore(tmp_path)


@pytest.mark.parametrize("name", ["source.ids", "source.ids.offsets", "target.text", "references.text", "meta.json"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, tokenizers: Tokenizers, name: str) -> None:
    make(tmp_path, tokenizers)
    assert is_store(tmp_path)
    flip_a_bit(tmp_path / name)
    assert not is_store(tmp_path)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def test_threads_and_pickle(tmp_path: Path, tokenizers: Tokenizers) -> None:
    store = make(tmp_path, tokenizers)
    assert len(pickle.dumps(store)) < 1000
    other = pickle.loads(pickle.dumps(store))
    numbers = np.random.default_rng(0).integers(0, len(store), 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.source_text, numbers)) == [EXAMPLES[i].source for i in numbers]
    assert other.references(3) == store.references(3)


def test_arrays_are_read_only(tmp_path: Path, tokenizers: Tokenizers) -> None:
    with pytest.raises(ValueError, match="read-only"):
        make(tmp_path, tokenizers).source_ids[0][0] = 7


def test_gather_is_indexing(tmp_path: Path, tokenizers: Tokenizers) -> None:
    store = make(tmp_path, tokenizers)
    numbers = np.array([4, 0, 1, 2, 0])
    found = store.source_ids.gather(numbers)
    assert found.values.tolist() == [i for n in numbers for i in store.source_ids[n].tolist()]
    assert found.lengths.tolist() == [len(store.source_ids[n]) for n in numbers]


def test_ragged_array_gather_and_truncate() -> None:
    sequences = RaggedArray.from_rows([[1, 2, 3], [], [4], [5, 6]], np.dtype("<u2"))
    chosen = sequences.gather(np.array([0, 1, 3])).truncate(2)
    assert chosen.values.tolist() == [1, 2, 5, 6]
    assert chosen.lengths.tolist() == [2, 0, 2]


def test_ids_take_two_bytes_while_they_fit() -> None:
    assert id_dtype(65_536).itemsize == 2
    assert id_dtype(65_537).itemsize == 4


def test_each_side_takes_as_many_bytes_as_its_own_ids_need(tmp_path: Path, tokenizers: Tokenizers) -> None:
    class Many:
        vocab_size = 70_000

        def is_byte(self, index: int) -> bool:
            return False

    for source, target in ((Many(), tokenizers.target), (tokenizers.source, Many())):
        folder = tmp_path / type(source).__name__
        folder.mkdir()
        with closing(StoreWriter(folder, Tokenizers(source, target, joint=False), (9, 9), ids_only=True)) as writer:
            writer.add_ids(pack([[1, 2]], source), pack([[1, 2]], target))
            writer.finish({})
        sizes = [(folder / f"{side}.ids").stat().st_size for side in ("source", "target")]
        assert sizes == [8 if isinstance(side, Many) else 4 for side in (source, target)]
        meta = read_meta(folder)
        assert [np.dtype(meta[f"{side}_dtype"]).itemsize for side in ("source", "target")] == [s // 2 for s in sizes]


def test_report_round_trip(tmp_path: Path, tokenizers: Tokenizers) -> None:
    report = make(tmp_path, tokenizers, training=True).report
    assert SplitReport.from_dict(json.loads(json.dumps(asdict(report)))) == report


SENTENCES = ["the cat sat on the mat", "a dog and a cat run", "the mat is on the dog", "cats and dogs"] * 30


@pytest.fixture(scope="module")
def sampling() -> Tokenizers:
    config = TokenizerConfig(vocab_size=25, byte_fallback=False, sampling_alpha=0.3)
    return train_tokenizers(lambda: iter(SENTENCES), lambda: iter(SENTENCES), config, seed=1)


def ids(store: TokenStore) -> list[list[int]]:
    return [[*store.source_ids[i].tolist(), -1, *store.target_ids[i].tolist()] for i in range(len(store))]


def test_resampling_is_a_function_of_seed_and_epoch(tmp_path: Path, sampling: Tokenizers) -> None:
    (tmp_path / "store").mkdir()
    examples = [Example(s, s, (s,)) for s in SENTENCES]
    write_store(tmp_path / "store", examples, sampling, DataConfig(max_source_length=12), training=False)
    store = TokenStore(tmp_path / "store")

    def draw(epoch: int, seed: int = 5, folder: str = "epochs") -> TokenStore:
        return store.resampled(sampling, seed=seed, epoch=epoch, folder=tmp_path / folder)

    first = draw(0)
    assert ids(first) != ids(store)
    assert ids(draw(1)) != ids(first)
    assert ids(draw(0, seed=6)) != ids(first)
    assert ids(draw(0, folder="again")) == ids(first)
    assert first.source_lengths.max() <= 12
    for number in range(len(store)):
        assert (
            first.target_text(number) == sampling.target.decode(first.target_ids[number].tolist()) == SENTENCES[number]
        )
    assert ids(pickle.loads(pickle.dumps(first))) == ids(first)
    before = ids(first)
    for epoch in range(2, 10):
        draw(epoch)

    def kept() -> list[int]:
        return sorted(int(p.name.rpartition("-")[2]) for p in (tmp_path / "epochs").iterdir() if p.name[0] != ".")

    assert kept() == sorted([0, *range(2, 10)])  # seed 6 has one of its own
    assert ids(first) == before  # its files are gone from the folder, not from the store
    draw(1)
    draw(10)
    assert kept() == sorted([0, 1, *range(3, 11)])  # what a run far behind may be about to open stays
    shutil.rmtree(tmp_path / "epochs")


RESAMPLE = """
import sys
from pathlib import Path
from seq2seq.data.store import TokenStore
from seq2seq.tokenizers.pair import load_tokenizers
folder = Path(sys.argv[1])
store = TokenStore(folder / "store").resampled(
    load_tokenizers(folder / "tokenizers"), seed=5, epoch=3, folder=folder / sys.argv[2]
)
print([[*store.source_ids[i].tolist(), -1, *store.target_ids[i].tolist()] for i in range(len(store))])
"""


def test_an_epoch_is_the_same_in_another_process_and_after_damage(tmp_path: Path, sampling: Tokenizers) -> None:
    (tmp_path / "store").mkdir()
    sampling.save(tmp_path / "tokenizers")
    write_store(tmp_path / "store", [Example(s, s, (s,)) for s in SENTENCES], sampling, DataConfig(), training=True)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", RESAMPLE, str(tmp_path), name], capture_output=True, text=True, check=True
        ).stdout
        for name in ("one", "two")
    ]
    assert outputs[0] == outputs[1]
    (epoch,) = (tmp_path / "one").glob("*-3")
    flip_a_bit(epoch / "source.ids")
    drawn = TokenStore(tmp_path / "store").resampled(sampling, seed=5, epoch=3, folder=tmp_path / "one")
    assert f"{ids(drawn)}\n" == outputs[0]


def test_what_a_drawn_epoch_loses_to_the_limits_is_in_its_report(tmp_path: Path, sampling: Tokenizers) -> None:
    (tmp_path / "store").mkdir()
    examples = [Example(s, "a cat", ("a cat",)) for s in SENTENCES]
    longest = max(len(sampling.source.encode(s)) for s in SENTENCES) + 1
    write_store(tmp_path / "store", examples, sampling, DataConfig(max_source_length=longest), training=True)
    store = TokenStore(tmp_path / "store")
    assert store.report.source.truncated == 0
    drawn = store.resampled(sampling, seed=5, epoch=0, folder=tmp_path / "epochs")
    report = drawn.report
    cut = [i for i in range(len(drawn)) if sampling.source.decode(drawn.source_ids[i].tolist()) != SENTENCES[i]]
    assert report.source.truncated >= len(cut) > 0
    assert report.source.kept_tokens - report.source.cut_tokens == sum(map(len, drawn.source_ids))
    assert report.target.truncated == 0
    assert (report.read, report.kept) == (store.report.read, store.report.kept)
    assert len(report.warnings()) == (report.source.truncated > 0.1 * len(drawn))


def test_what_is_cut_is_counted_by_hand(tmp_path: Path) -> None:
    """Sources of 1 to 6 words, targets of 2; end of sentence counts in the limit of 4, so that 3 words stay."""
    words = ["un", "deux", "trois", "quatre", "cinq", "six"]
    examples = [Example(" ".join(words[: n + 1]), "a b", ("a b",)) for n in range(6)]
    config = TokenizerConfig(kind=TokenizerKind.word, vocab_size=20)
    tokenizers = train_tokenizers(lambda: (e.source for e in examples), lambda: iter(["a b"]), config, seed=1)
    for training in (True, False):
        folder = tmp_path / str(training)
        folder.mkdir()
        limits = DataConfig(max_source_length=4, max_target_length=3, on_long=OnLong.truncate)
        write_store(folder, iter(examples), tokenizers, limits, training=training)
        report = TokenStore(folder).report
        source, target = report.source, report.target
        assert (report.kept, source.truncated, source.kept_tokens, source.cut_tokens) == (6, 3, 21, 1 + 2 + 3)
        assert (target.truncated, target.kept_tokens, target.cut_tokens) == (0, 12, 0)
        assert source.limit == 4
        assert "3 truncated to 4 (50.0% of examples, 28.6% of tokens cut)" in report.lines("x")[1]
        assert "truncated" not in report.lines("x")[2]
        assert sum(len(TokenStore(folder).source_ids[n]) for n in range(6)) == 21 - 6
    folder = tmp_path / "skip"
    folder.mkdir()
    write_store(folder, iter(examples), tokenizers, DataConfig(max_source_length=4), training=True)
    report = TokenStore(folder).report
    assert (report.kept, report.dropped, report.source.truncated) == (3, {"too long": 3}, 0)
    assert (report.source.tokens, report.source.kept_tokens, report.source.cut_tokens) == (21, 6, 0)


def test_much_cutting_or_skipping_of_training_examples_is_warned_of() -> None:
    def split(**values: int) -> SplitReport:
        report = SplitReport(read=100, kept=100)
        report.source.lengths = report.target.lengths = {"p95": 70}
        report.source.limit, report.target.limit = 50, 20
        for name, value in values.items():
            side, _, field = name.partition("_")
            setattr(getattr(report, side), field, value)
        return report

    (line,) = split(source_truncated=11, source_kept_tokens=1000, source_cut_tokens=64).warnings()
    for words in ("11 of 100", "(11.0%)", "data.max_source_length=50", "6.4%", "data.max_source_length=70"):
        assert words in line
    assert split(source_truncated=10, source_kept_tokens=1000, source_cut_tokens=64).warnings() == []
    (line,) = split(target_truncated=100, target_kept_tokens=1000, target_cut_tokens=900).warnings()
    assert "data.max_target_length=20" in line
    skipped = SplitReport(read=100, kept=80, dropped={"too long": 20})
    (line,) = skipped.warnings()
    assert "20 of 100" in line
    assert "data.on_long=truncate" in line
    assert SplitReport(read=100, kept=80, dropped={"seen before": 20}).warnings() == []
    bad = split(source_truncated=11, source_kept_tokens=1000, source_cut_tokens=64)
    assert report_lines({"train": bad, "valid": bad})[6:] == bad.warnings()  # of the training set only
    assert report_lines({"valid": bad})[3:] == []
    assert SplitReport().warnings() == []
