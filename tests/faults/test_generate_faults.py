"""Hostile text, full disks and files that go away: what becomes of `seq2seq generate` and of `seq2seq.load`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import stress_generate

import seq2seq
from seq2seq.cli.main import run_command
from seq2seq.data.text import read_lines

SMALL = ("optim.warmup_steps=1", "trainer.eval_examples=0", "trainer.max_steps=2", "search.max_length=8",
         "search.beam_size=2")  # fmt: skip
PAIRS = [(f"{number} men read", f"{number} read men") for number in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generate")


@pytest.fixture(scope="module")
def train(folder: Path, tiny: dict[str, tuple[str, ...]]) -> Callable[..., Path]:
    def trained(name: str, *settings: str) -> Path:
        places = (f"output_root={folder}", f"name={name}", f"data.root={folder}")
        assert run_command("train", [*tiny["transformer"], *SMALL, *places, *settings]) == 0
        return folder / name

    return trained


@pytest.fixture(scope="module")
def run(folder: Path, train: Callable[..., Path]) -> Path:
    """A run on two text files, in characters."""
    for place, side in enumerate(("source", "target")):
        (folder / side).write_text("".join(f"{pair[place]}\n" for pair in PAIRS), encoding="utf-8")
    files = [f"data.{split}.{side}={side}" for split in ("train", "valid") for side in ("source", "target")]
    return train("characters", *files)


@pytest.fixture(scope="module")
def word_run(folder: Path, train: Callable[..., Path]) -> Path:
    """A run on the columns of a TSV file, in words, with a table of positions."""
    (folder / "pairs.tsv").write_text("".join(f"{target}\t{source}\n" for source, target in PAIRS), encoding="utf-8")
    files = [f"data.{split}.{key}" for split in ("train", "valid")
             for key in ("path=pairs.tsv", "source_field=1", "target_field=0")]  # fmt: skip
    limits = ["model.positions=learned", "model.max_positions=12", "data.max_source_length=12",
              "data.max_target_length=12"]  # fmt: skip
    return train("words", "tokenizer=word", "model.tie_embeddings=decoder", *files, *limits)


def generate(run: Path, text: bytes, *settings: str, name: str = "input.txt") -> list[str]:
    """The lines that the command writes for the bytes of a file."""
    given, written = run.parent / name, run.parent / "output.txt"
    given.write_bytes(text)
    written.unlink(missing_ok=True)
    assert run_command("generate", [f"run={run}", f"input={given}", f"output={written}", *settings]) == 0
    content = written.read_text(encoding="utf-8")
    assert content.endswith("\n") or not content
    return content.split("\n")[:-1]


def refused(run: Path, capsys: pytest.CaptureFixture[str], *settings: str) -> str:
    given = run.parent / "input.txt"
    given.write_text("1 men\n", encoding="utf-8")
    assert run_command("generate", [f"run={run}", f"input={given}", *settings]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors.partition("seq2seq: error: ")[2]


# -- what lines may hold ---------------------------------------------------------------------------------------


def test_hostile_lines_keep_their_places_in_the_real_pipe(run: Path) -> None:
    overrides = ["search.batch_size=16", "trainer.device=cpu", "data.max_source_length=40"]
    found = stress_generate.stream(run, 620, seed=3, keep=set(range(495, 520)), overrides=overrides)
    assert stress_generate.check(run, found, count=620, seed=3, overrides=overrides) == []
    assert found.lines == 620
    found.kept[497], found.kept[498] = found.kept[498], found.kept[497]
    found.blank_not_empty.append(7)
    wrong = stress_generate.check(run, found, count=621, seed=3, overrides=overrides)
    assert [line.split(" alone")[0].split(" is")[0] for line in wrong] == [
        "621 lines in, 620 out", "line 8", "line 498", "line 499",
    ]  # fmt: skip


def test_a_line_of_a_megabyte_is_cut_counted_and_stops_no_other(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = generate(run, b"1 men\n" + b"men " * 250_000 + b"\n\n" + b"x" * 1_000_000 + b"\n2 men")
    assert len(lines) == 5
    assert lines[2] == ""
    assert "truncated: 2" in capsys.readouterr().err
    assert [lines[0], lines[4]] == generate(run, b"1 men\n2 men\n")


def test_control_characters_and_other_line_ends_are_characters_of_their_line(run: Path) -> None:
    hostile = "\x00\n1\x00 men\n\x01\x02\x7f\n1\u2028men\u2029\x85\n1\x0b\x0cmen\n\r\r\r\n\ufeff\n\U0010ffff\n"
    assert len(generate(run, hostile.encode())) == 8


def test_names_of_special_tokens_are_text(run: Path, word_run: Path) -> None:
    for folder in (run, word_run):
        ((output,),) = seq2seq.load(folder).generate_nbest(["</s> <pad> <s> men </s>"])
        assert output.source_tokens.count("</s>") == 1
        assert output.source_tokens[-1] == "</s>"
        assert not {"<pad>", "<s>"} & set(output.source_tokens)


def test_a_lone_surrogate_from_python_is_a_value_error_that_says_where(run: Path, word_run: Path) -> None:
    for folder in (run, word_run):
        with pytest.raises(ValueError, match=r"lone surrogate \(U\+D800 at character 2\)"):
            seq2seq.load(folder).generate(["1 men", "a \ud800 b"])


def test_sources_of_unknown_words_or_beyond_the_positions_give_a_line_and_one_warning(
    word_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = generate(word_run, b"unheard of\n1 men\n" + b"men " * 5000 + b"\nyet another\n")
    assert len(lines) == 4
    errors = capsys.readouterr().err
    assert errors.count("tokenizer knows no token: 2") == errors.count("truncated: 1") == 1


def test_more_positions_than_there_are_is_refused_by_key(word_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(word_run, capsys, "search.max_length=13")
    assert "search.max_length=13 is above model.max_positions=12" in message


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf"], ids=["empty", "byte order mark"])
def test_no_lines_give_an_empty_file(run: Path, text: bytes) -> None:
    assert generate(run, text) == []


def test_a_single_token_is_the_shortest_output(run: Path) -> None:
    (line,) = generate(run, b"1 men\n", "search.max_length=1", "format=jsonl")
    assert len(json.loads(line)["nbest"][0]["tokens"]) == 1


def test_more_outputs_than_beams_are_refused_by_key(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "search.n_best=3 is above search.beam_size=2" in refused(run, capsys, "search.n_best=3")


def test_records_for_a_run_that_was_trained_on_columns(word_run: Path) -> None:
    records = b'{"source": "1 men", "1": "no"}\n{"source": ""}\n'
    expected = generate(word_run, b"1 men\n\n")
    assert generate(word_run, records, name="input.jsonl") == expected
    other = records.replace(b"source", b"text")
    assert generate(word_run, other, "data.train.source_field=text", name="input.jsonl") == expected


# -- files that fail -------------------------------------------------------------------------------------------


def test_an_input_that_is_deleted_meanwhile_is_read_to_its_end(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("1 men read\n" * 5000, encoding="utf-8")
    outputs = seq2seq.load(run, overrides=["search.max_length=1"]).stream(read_lines(path), block=500)
    next(outputs)
    path.unlink()
    assert len(list(outputs)) == 4999


@pytest.mark.parametrize("output", ["nowhere/out.txt", "."], ids=["no such folder", "a folder"])
def test_an_output_that_cannot_be_made_is_refused(run: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    path = run.parent / output
    assert f"output={path}: cannot be written: " in refused(run, capsys, f"output={path}")


def test_an_output_that_is_a_link_stays_one(run: Path, tmp_path: Path) -> None:
    """As `/dev/stdout` is one, to the file that standard output is redirected to."""
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    (run.parent / "input.txt").write_text("1 men\n", encoding="utf-8")
    for _ in ("a file that is not there yet", "one that is"):
        assert run_command("generate", [f"run={run}", f"input={run.parent}/input.txt", f"output={link}"]) == 0
        assert link.readlink() == file
        assert file.read_text(encoding="utf-8").count("\n") == 1


def command(run: Path, *settings: str, limit: str = "") -> list[str]:
    generate = [sys.executable, "-m", "seq2seq", "generate", f"run={run}", f"input={run.parent}/many.txt", *settings]
    return ["bash", "-c", f'{limit} exec "$@"', "bash", *generate]


def test_a_full_disk_leaves_the_old_output_and_nothing_half_written(run: Path, tmp_path: Path) -> None:
    """The disk is a limit on the size of files, which every user may set."""
    (run.parent / "many.txt").write_text("1 men read\n" * 200, encoding="utf-8")
    output = tmp_path / "out.txt"
    output.write_text("old\n", encoding="utf-8")
    done = subprocess.run(
        command(run, f"output={output}", "format=jsonl", limit="ulimit -f 4;"),
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert f"no space left: {output}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [output]


def test_standard_output_on_a_full_disk_ends_with_code_3(run: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    (run.parent / "many.txt").write_text("1 men read\n" * 200, encoding="utf-8")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(run), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "no space left: standard output" in done.stderr
    assert "Traceback" not in done.stderr
