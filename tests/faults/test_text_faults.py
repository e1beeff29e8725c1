"""Faulty and odd text files, read from the disk by the way that every command reads them: `data.prepare`."""

import gzip
import json
import os
import random
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seq2seq.cli.main import run_command
from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.data.prepare import PreparedData, open_corpus, prepare
from seq2seq.data.report import SideReport, report_lines
from seq2seq.data.store import TokenStore
from seq2seq.errors import TrainingError, UserError
from seq2seq.tokenizers.base import UNK_ID
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind

LINES = [f"the {word} number {i} is {word}" for i in range(12) for word in ("cat", "dog", "red", "old")]
CHARACTERS = {"kind": TokenizerKind.char, "vocab_size": 400}
PACKAGE = Path(__file__).resolve().parents[2]


def joined(lines: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


def prepared(
    folder: Path, source: bytes, target: bytes, *, data: dict[str, Any] | None = None, **words: Any
) -> PreparedData:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s").write_bytes(source)
    (folder / "t").write_bytes(target)
    (folder / "clean").write_bytes(joined(LINES))
    clean = CorpusConfig(source="clean", target="clean")
    config = DataConfig(root=str(folder), train=CorpusConfig(source="s", target="t"), valid=clean, **(data or {}))
    tokenizer = TokenizerConfig(**{**CHARACTERS, **words})
    return prepare(config, tokenizer, cache_root=folder / "cache", seed=1, log=lambda line: None)


def refusal(folder: Path, source: bytes, target: bytes, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        prepared(folder, source, target, **changes)
    assert not list((folder / "cache" / "stores").glob("*"))
    return str(error.value)


def sources(store: TokenStore) -> list[str]:
    return [store.source_text(i) for i in range(len(store))]


def every_id(store: TokenStore) -> list[tuple[list[int], list[int]]]:
    return [(store.source_ids[i].tolist(), store.target_ids[i].tolist()) for i in range(len(store))]


@pytest.mark.parametrize("lost", [0, 9, 47])
def test_different_numbers_of_lines_are_refused_with_both_and_the_place(tmp_path: Path, lost: int) -> None:
    lines = [f"{'word ' * (i % 11)}{i}" for i in range(48)]
    message = refusal(tmp_path, joined(lines), joined(lines[:lost] + lines[lost + 1 :]))
    for part in (f"data.train.source={tmp_path / 's'} has 48 lines", f"data.train.target={tmp_path / 't'} has 47"):
        assert part in message
    if lost < 40:  # at the very end there is nothing behind it that would not fit
        assert f"{lost + 1}" in message.replace("48", "").replace("47", "")


@pytest.mark.parametrize("blank", ["", " ", "\t \t", "\u3000", "\u00a0\u2003", "\x0b\x0c"])
def test_blank_lines_are_dropped_with_a_count_in_training_and_kept_elsewhere(tmp_path: Path, blank: str) -> None:
    made = prepared(tmp_path, joined([*LINES, blank, "a cat", blank]), joined([*LINES, "b", blank, blank]))
    assert (made.train.report.read, len(made.train)) == (len(LINES) + 3, len(LINES))
    assert made.train.report.dropped == {"empty on a side": 3}
    assert "dropped: 3 empty on a side" in report_lines(made.reports)[0]
    data = DataConfig(root=str(tmp_path))
    kept = open_corpus(CorpusConfig(source="s", target="t"), made.tokenizers, data, key="data.test.x")
    assert len(kept) == len(LINES) + 3
    assert [kept.source_text(len(LINES) + i) for i in range(3)] == [blank, "a cat", blank]


LONG_LINE = """
import random, resource, sys
from pathlib import Path
from seq2seq.data.corpus import CorpusConfig, DataConfig, OnLong
from seq2seq.data.prepare import prepare
from seq2seq.tokenizers.pair import TokenizerConfig, TokenizerKind
def peak():
    # Linux counts into ru_maxrss what the parent held before exec; the program has a mark of its own there.
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    marks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(marks[0].split()[1]) * 1024
folder, kind, rule, alpha = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
corpus = CorpusConfig(source="s", target="t")
data = DataConfig(root=str(folder), train=corpus, valid=corpus, on_long=OnLong(rule))
tokenizer = TokenizerConfig(kind=TokenizerKind(kind), vocab_size=300 if kind != "word" else 2000, sampling_alpha=alpha)
made = prepare(data, tokenizer, cache_root=folder / "cache", seed=1, log=lambda line: None)
if alpha:
    made.train.resampled(made.tokenizers, seed=1, epoch=0, folder=folder / "epochs")
report = made.train.report
print(len(made.train), report.dropped.get("too long", 0), report.source.truncated, report.source.lengths["longest"],
      made.valid.source_lengths.max(), len(made.valid.source_text(300)),
      peak() // 2**20)
"""


@pytest.mark.parametrize(
    ("kind", "rule", "alpha", "gap"),
    [
        ("unigram", "skip", 0, " "),
        ("unigram", "truncate", 0.2, " "),
        ("bpe", "truncate", 0, ""),
    ],
)
def test_a_line_of_a_megabyte_is_cut_or_left_out_by_the_rule(tmp_path: Path, kind, rule, alpha, gap) -> None:
    """The memory is that of a process that has read it, about 100 bytes a character; a square would be a terabyte."""
    generator = random.Random(1)
    words = ["".join(generator.choices("abcdefgh", k=4)) for _ in range(900)]
    lines = [" ".join(generator.choices(words, k=6)) for _ in range(300)]
    long = gap.join(generator.choices(words, k=1_000_000 // (4 + len(gap))))
    (tmp_path / "s").write_bytes(joined([*lines, long]))
    (tmp_path / "t").write_bytes(joined([*lines, "short"]))
    command = [sys.executable, "-c", LONG_LINE, str(tmp_path), kind, rule, str(alpha)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    count, dropped, cut, longest, kept_length, whole, megabytes = map(int, done.stdout.split())
    assert (count, dropped, cut) == ((300, 1, 0) if rule == "skip" else (301, 0, 1))
    assert longest > 100_000
    assert (kept_length, whole) == (256, len(long))  # of validation: cut, and its text kept
    assert megabytes < 700


def test_invalid_utf8_is_refused_by_line_or_replaced_on_request(tmp_path: Path) -> None:
    bad = joined(LINES) + b"caf\xe9 \xff\n"
    message = refusal(tmp_path, bad, joined([*LINES, "x"]))
    assert f"{tmp_path / 's'}:{len(LINES) + 1}: not UTF-8: byte 0xe9 in column 4" in message
    assert "data.encoding_errors=replace" in message
    made = prepared(tmp_path, bad, joined([*LINES, "x"]), data={"encoding_errors": "replace"})
    assert sources(made.train)[-1] == "caf\ufffd \ufffd"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (joined(LINES).decode().encode("utf-16"), "UTF-16"),
        (joined(LINES).decode().encode("utf-16-be"), "UTF-16"),
        (joined(["猫と犬"] * len(LINES)).decode().encode("utf-16"), "UTF-16"),  # only the mark at its start tells
        (gzip.compress(joined(LINES), mtime=0), "is gzip-compressed, not plain text. Give it a name ending in .gz"),
    ],
)
@pytest.mark.parametrize("side", ["s", "t"])
def test_utf16_and_gzip_are_recognised_on_either_side(tmp_path: Path, content: bytes, said: str, side: str) -> None:
    clean = joined(LINES)
    message = refusal(tmp_path, *((content, clean) if side == "s" else (clean, content)))
    assert f"{tmp_path / side}: " in message
    assert said in message


def test_a_byte_order_mark_and_carriage_returns_change_no_id(tmp_path: Path) -> None:
    plain = prepared(tmp_path / "plain", joined(LINES), joined(LINES))
    odd = prepared(
        tmp_path / "odd", b"\xef\xbb\xbf" + joined(LINES, "\r\n"), b"\xef\xbb\xbf" + joined(LINES, "\r\n")[:-2]
    )
    assert every_id(odd.train) == every_id(plain.train)
    assert sources(odd.train) == LINES
    assert odd.fingerprints["tokenizer"] == plain.fingerprints["tokenizer"]


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_separators_controls_and_nul_stay_in_their_lines(tmp_path: Path, kind: TokenizerKind) -> None:
    odd = [
        f"a{chr(code)}b" for code in [*range(10), *range(11, 32), 0x7F, 0x85, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0x1F600]
    ]
    lines = [*LINES, *odd]
    made = prepared(tmp_path, joined(lines), joined(lines), kind=kind, vocab_size=290)
    assert sources(made.train) == lines
    for number in range(len(LINES), len(lines)):
        ids = made.train.source_ids[number].tolist()
        text = made.tokenizers.source.decode(ids)
        assert text.startswith("a")
        assert text.endswith("b")
        assert "\n" not in text


def test_unknown_characters_are_counted(tmp_path: Path) -> None:
    """Three emojis in a validation set whose training set has none: twelve bytes, or three unknown tokens."""
    (tmp_path / "odd").write_bytes(joined([*LINES, "the 😀 cat 😀", "😀"]))
    odd = CorpusConfig(source="odd", target="odd")

    def report(name: str, **settings: Any) -> SideReport:
        clean = CorpusConfig(source="clean", target="clean")
        (tmp_path / "clean").write_bytes(joined(LINES))
        data = DataConfig(root=str(tmp_path), train=clean, valid=odd)
        tokenizer = TokenizerConfig(**{**CHARACTERS, **settings})
        made = prepare(data, tokenizer, cache_root=tmp_path / name, seed=1, log=lambda line: None)
        side = made.reports["valid"].source
        line = made.reports["valid"].lines("valid")[1]
        assert f"{side.unknown / side.tokens:.3%} unknown" in line
        assert f"{side.byte_pieces / side.tokens:.3%} byte pieces" in line
        return side

    known = report("bytes")
    assert (known.byte_pieces, known.unknown) == (12, 0)
    lost = report("unknown", byte_fallback=False)
    assert (lost.byte_pieces, lost.unknown) == (0, 3)
    words = report("words", kind=TokenizerKind.word)
    assert (words.byte_pieces, words.unknown) == (0, 3)


@pytest.mark.parametrize("kind", [TokenizerKind.char, TokenizerKind.unigram, TokenizerKind.bpe])
def test_typed_control_tokens_are_text_and_marks_of_spaces_are_counted(tmp_path: Path, kind: TokenizerKind) -> None:
    lines = [*LINES, "a </s> b <pad> c <s> d <unk>", "▁a▁b", "x▁y"]
    made = prepared(tmp_path, joined(lines), joined(lines), kind=kind, vocab_size=290)
    assert made.train.report.source.meta_spaces == 2
    assert "2 with U+2581" in report_lines(made.reports)[1]
    ids = made.train.source_ids[len(LINES)].tolist()
    assert min(ids) > UNK_ID + 2
    decode = made.tokenizers.source.decode
    assert decode(ids) == lines[-3]
    assert [decode(made.train.source_ids[len(LINES) + i].tolist()) for i in (1, 2)] == ["a b", "x y"]


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_lone_surrogates_are_refused(tmp_path: Path, kind: TokenizerKind) -> None:
    tokenizer = prepared(tmp_path, joined(LINES), joined(LINES), kind=kind, vocab_size=290).tokenizers.source
    for encode in (tokenizer.encode, lambda text: tokenizer.sample_batch([text], seed=1)):
        with pytest.raises(ValueError, match=r"lone surrogate \(U\+D800 at character 2\)"):
            encode("ab\ud800")
    (tmp_path / "x.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "a\\udfff", "target": "b"}\n')
    with pytest.raises(UserError, match=r"x\.jsonl:2: field 'source' contains a lone surrogate"):
        open_corpus(
            CorpusConfig(path="x.jsonl"), prepared(tmp_path, joined(LINES), joined(LINES)).tokenizers,
            DataConfig(root=str(tmp_path)), key="data.test.x",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder, not a file"),
        ("pipe", "a pipe or device"),
        ("/dev/null", "a pipe or device"),
        ("empty", "empty, without a single example"),
        ("mark", "empty, without a single example"),
        ("dangling", "a link to nowhere, where there is no file"),
        ("loop", "a link to loop, where there is no file"),
        ("x" * 300, "cannot be read"),
    ],
)
@pytest.mark.parametrize("section", ["train", "valid"])
def test_what_is_no_text_file_is_said_to_be_so(tmp_path: Path, name: str, said: str, section: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "mark").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "clean").write_bytes(joined(LINES))
    clean, odd = CorpusConfig(source="clean", target="clean"), CorpusConfig(source=name, target=name)
    data = replace(DataConfig(root=str(tmp_path), train=clean, valid=clean), **{section: odd})
    with pytest.raises(UserError) as error:
        prepare(data, TokenizerConfig(**CHARACTERS), cache_root=tmp_path / "cache", seed=1, log=lambda line: None)
    assert f"data.{section}.source={tmp_path / name if name in ('empty', 'mark') else ''}" in str(error.value)
    assert said in str(error.value)


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    made = prepared(tmp_path, joined(LINES)[:-1], joined(LINES))
    assert sources(made.train) == LINES


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_a_tiny_corpus_is_prepared_or_told_the_size_that_works(tmp_path: Path, kind: TokenizerKind, count: int) -> None:
    """All settings are the defaults but the kind."""
    content = joined(LINES[:count])
    default = TokenizerConfig().vocab_size
    if kind in (TokenizerKind.char, TokenizerKind.word):
        made = prepared(tmp_path, content, content, kind=kind, vocab_size=default)
    else:
        message = refusal(tmp_path, content, content, kind=kind, vocab_size=default)
        assert f"tokenizer.vocab_size={default} is too large for the training corpus, which yields at most" in message
        most = int(message.rpartition("set tokenizer.vocab_size=")[2].split()[0])
        made = prepared(tmp_path, content, content, kind=kind, vocab_size=most)
        assert made.tokenizers.source.vocab_size == most
    assert len(made.train) == count
    text = made.tokenizers.source.decode(made.train.source_ids[0].tolist())
    assert text == LINES[0]


@pytest.mark.parametrize("text", ["a", "漢"])
def test_a_corpus_of_one_character_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").write_text(text + "\n", encoding="utf-8")
    files = [f"data.{split}.{side}={tmp_path / 'one'}" for split in ("train", "valid") for side in ("source", "target")]
    arguments = [
        *files,
        "name=one",
        "model=gru_tiny",
        "optim.warmup_steps=1",
        "trainer.max_steps=2",
        "trainer.device=cpu",
        "trainer.threads=1",
    ]
    assert run_command("prepare", arguments) == 2
    message = capsys.readouterr().err
    assert "tokenizer.vocab_size=8000 is too large" in message
    most = message.rpartition("set tokenizer.vocab_size=")[2].split()[0]
    command = "train" if text == "a" else "prepare"
    assert run_command(command, [*arguments, f"tokenizer.vocab_size={most}"]) == 0
    if command == "train":
        assert json.loads((tmp_path / "outputs/one/results.json").read_text())["train"]["steps"] == 2


IN_A_SMALL_FILE_SYSTEM = """
mount -t tmpfs -o size=300k none "$1" || exit 99
cd "$1"
"$2" -m seq2seq prepare name=x data.root="$3" data.train.source=s data.train.target=s data.valid.source=v \
    data.valid.target=v tokenizer=char cache_root="$1/cache" output_root="$3/outputs"
echo "ended with $?"
find "$1/cache" -name '*.partial'
mount -o remount,size=50m "$1"
"$2" -m seq2seq prepare name=x data.root="$3" data.train.source=s data.train.target=s data.valid.source=v \
    data.valid.target=v tokenizer=char cache_root="$1/cache" output_root="$3/outputs"
echo "ended with $?"
"""


@pytest.mark.slow
def test_a_disk_that_is_full_while_the_store_is_written(tmp_path: Path) -> None:
    """A file system of 300 kB, in a user namespace, which needs no privileges; then it is made larger."""
    small, data = tmp_path / "small", tmp_path / "data"
    small.mkdir()
    data.mkdir()
    (data / "s").write_bytes(joined([f"{line} {i}" for i in range(100) for line in LINES]))
    (data / "v").write_bytes(joined(LINES))
    command = ["unshare", "-rm", "sh", "-c", IN_A_SMALL_FILE_SYSTEM, "sh", str(small), sys.executable, str(data)]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.stdout.splitlines().count("ended with 3") == 1, done.stdout + done.stderr
    assert "the disk is full (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stdout
    assert done.stdout.splitlines()[-1] == "ended with 0"


def test_a_limit_on_the_size_of_files_while_the_store_is_written(tmp_path: Path) -> None:
    content = joined([f"{line} {i}" for i in range(100) for line in LINES])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"the disk is full \(File too large\)"):
            prepared(tmp_path, content[:99_999], content[:99_999])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache").rglob("*.partial"))
    assert len(prepared(tmp_path, content, content).train) == 100 * len(LINES)
