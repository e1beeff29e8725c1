"""`seq2seq compare` on run folders and files as users have them."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seq2seq.cli.main import run_command
from seq2seq.config import saved
from seq2seq.config.commands import CompareConfig
from seq2seq.config.schema import Config
from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MetricsConfig, score
from seq2seq.pipeline.results import write_generations

REFERENCES = ["the cat sat on the mat", "a dog barks loudly at night", "it rains today in the town", "yes it is"]
SOURCES = ["die katze", "ein hund", "es regnet", "ja"]
FIRST = ["the cat sat on the mat", "a dog", "it rains today in a town", "yes it is"]
SECOND = ["a cat", "a dog barks loudly at night", "it rains today in the town", "yes it is"]
QUICK = ["resamples=20", "trials=30"]
METRICS = MetricsConfig(names=["rouge1", "chrf"], bootstrap=0)

Compare = Callable[..., tuple[int, str, str]]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def make_run(path: Path, outputs: list[str], *, target: str = "news.de") -> None:
    """A run folder as far as `compare` reads it: complete, with one test set."""
    corpus = CorpusConfig(source="news.en", target=target)
    data = DataConfig(root="corpus", target_language="en", test={"news": corpus})
    config = replace(Config(), data=data, metrics=METRICS)
    write(path / "generations" / "news.txt", outputs)
    (path / "config.yaml").write_text(saved.to_yaml(config), encoding="utf-8")
    scores = score(outputs, [[text] for text in REFERENCES], METRICS, target_language="en", seed=1)
    test = {"news": {metric: one.to_dict() for metric, one in scores.items()}}
    (path / "results.json").write_text(
        json.dumps({"complete": True, "objective": {"value": 1.0}, "test": test}), encoding="utf-8"
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "corpus" / "news.en", SOURCES)
    write(tmp_path / "corpus" / "news.de", REFERENCES)
    write(tmp_path / "corpus" / "changed.de", [*REFERENCES[:3], "no"])
    write(tmp_path / "corpus" / "short.de", REFERENCES[:3])
    make_run(tmp_path / "runs" / "a", FIRST)
    make_run(tmp_path / "runs" / "b", SECOND)
    return tmp_path


@pytest.fixture
def compare(home: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_command("compare", [*arguments, *QUICK])
        return code, *capsys.readouterr()

    return run


def tree(output: str, test_set: str = "news") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output)
    assert list(found) == [test_set]
    return found[test_set]


def test_two_runs(compare: Compare) -> None:
    code, out, err = compare("run=runs/a", "other=runs/b")
    assert (code, err) == (0, "")
    assert out.startswith("## news: 4 examples")
    assert "| rouge1 | b " in out
    assert "source     ein hund" in out
    code, out, _ = compare("run=runs/a", "other=runs/b", "format=json")
    figures = tree(out)
    assert list(figures["metrics"]) == ["rouge1", "chrf"]  # the first run's
    expected = score(SECOND, [[text] for text in REFERENCES], METRICS, target_language="en", seed=1)
    assert figures["metrics"]["chrf"]["systems"]["b"]["score"] == pytest.approx(expected["chrf"].score)


def test_several_runs_and_other_metrics(compare: Compare, home: Path) -> None:
    make_run(home / "more" / "a", SECOND)
    code, out, _ = compare(
        "run=runs/a", "other=[runs/b,more/a,runs/a]", "metrics.names=[bleu]", "format=json", "examples=0"
    )
    assert code == 0
    figures = tree(out)
    systems = figures["metrics"]["bleu"]["systems"]
    assert list(systems) == ["runs/a", "runs/b", "more/a", "runs/a (4)"]
    assert systems["runs/b"] == systems["more/a"]
    assert systems["runs/a (4)"]["difference"]["p_randomization"] == 1
    assert all(side == {"better": [], "worse": []} for side in figures["contrasts"]["systems"].values())


def test_files_give_what_runs_give(compare: Compare) -> None:
    _, of_runs, _ = compare("run=runs/a", "other=runs/b", "format=json")
    code, of_files, _ = compare(
        "hyp=runs/a/generations/news.txt", "other=runs/b/generations/news.txt", "ref=corpus/news.de",
        "source=corpus/news.en", "metrics.names=[rouge1,chrf]", "data.target_language=en", "format=json",
    )  # fmt: skip
    assert code == 0
    assert (
        of_files.replace("runs/a/generations/news.txt", "a")
        .replace("runs/b/generations/news.txt", "b")
        .replace("news.de", "news")
        == of_runs
    )


def test_several_references(compare: Compare, home: Path) -> None:
    records = [
        {"body": source, "subject": reference, "annotations": [reference.upper(), "x"]}
        for source, reference in zip(SOURCES, REFERENCES, strict=True)
    ]
    with gzip.open(home / "dev.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    write(home / "upper", [reference.upper() for reference in REFERENCES])
    write(home / "x", ["x"] * 4)
    write(home / "a.txt", FIRST)
    (home / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SECOND), encoding="utf-8")
    common = ["hyp=a.txt", "other=b.jsonl", "metrics.names=[rouge1,ter]", "format=json"]
    fields = ["source_field=body", "target_field=subject", "references_field=annotations"]
    code, out, _ = compare(*common, "ref=dev.jsonl.gz", *fields)
    assert code == 0
    of_records = tree(out, "dev.jsonl.gz")
    assert of_records["contrasts"]["systems"]["b.jsonl"]["better"][0]["source"] == "ein hund"
    code, out, _ = compare(*common, "ref=[corpus/news.de,upper,x]")
    assert code == 0
    of_lines = tree(out, "news.de")
    assert of_lines["metrics"] == of_records["metrics"]
    assert of_lines["contrasts"]["systems"]["b.jsonl"]["better"][0]["source"] is None


def test_a_corpus_that_was_moved(compare: Compare, home: Path) -> None:
    (home / "corpus").rename(home / "moved")
    assert "no such file" in compare("run=runs/a", "other=runs/b")[2]
    assert compare("run=runs/a", "other=runs/b", "data.root=moved")[0] == 0
    code, _, err = compare("run=runs/a", "other=runs/b", "data.root=moved", "data.test.news.target=changed.de")
    assert code == 0
    assert err.count("results.json has") == 4  # two runs, two metrics: these are other references


def test_encoding_errors_given_on_the_command_line_apply_to_all_runs(compare: Compare, home: Path) -> None:
    source = home / "corpus" / "news.en"
    source.write_bytes(source.read_bytes().replace(b" ", b" \xff", 1))
    assert "UTF-8" in compare("run=runs/a", "other=runs/b")[2]
    code, _, err = compare("run=runs/a", "other=runs/b", "data.encoding_errors=replace")
    assert code == 0, err


def test_outputs_that_changed_since_are_reported(compare: Compare, home: Path) -> None:
    write(home / "runs" / "b" / "generations" / "news.txt", FIRST)
    code, _, err = compare("run=runs/a", "other=runs/b")
    assert code == 0
    assert "runs/b: the outputs in generations/ have a rouge1 of" in err
    assert "runs/a" not in err
    assert compare("run=runs/a", "other=runs/b", "metrics.rouge_stemmer=false", "metrics.names=[rouge1]")[2] == ""


def test_outputs_of_runs_keep_their_line_breaks(compare: Compare, home: Path) -> None:
    swapped = [text.replace(" ", "\n", 1) for text in SECOND]
    write_generations(home / "runs" / "b" / "generations", {"news": swapped})
    assert (home / "runs" / "b" / "generations" / "news.txt").read_text().splitlines() == SECOND
    code, out, _ = compare("run=runs/a", "other=runs/b", "metrics.names=[rougeLsum]", "format=json")
    assert code == 0
    figures = tree(out)
    config = MetricsConfig(names=["rougeLsum"], bootstrap=0)
    expected = score(swapped, [[text] for text in REFERENCES], config, target_language="en", seed=1)
    assert figures["metrics"]["rougeLsum"]["systems"]["b"]["score"] == pytest.approx(expected["rougeLsum"].score)
    assert figures["contrasts"]["systems"]["b"]["better"][0]["outputs"][1] == swapped[1]
    write_generations(home / "runs" / "b" / "generations", {"news": SECOND})  # none are left from before
    assert compare("run=runs/a", "other=runs/b")[2] == ""


def spoil(home: Path, how: str) -> None:
    run = home / "runs" / "b"
    if how == "changed":
        make_run(run, SECOND, target="changed.de")
    elif how == "unfinished":
        (run / "results.json").unlink()
    elif how == "ungenerated":
        (run / "generations" / "news.txt").unlink()
    elif how == "cut":
        write(run / "generations" / "news.txt", SECOND[:2])
    elif how == "renamed":
        text = (run / "config.yaml").read_text(encoding="utf-8")
        (run / "config.yaml").write_text(text.replace("    news:", "    old:"), encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        (
            "changed",
            ["run=runs/a and other=runs/b", "news", "example 4", "'yes it is' against 'no'", "~data.test.news"],
        ),
        ("unfinished", ["other=runs/b is not complete", "seq2seq train"]),
        ("ungenerated", ["other=runs/b has no outputs for test set news", "seq2seq evaluate run=runs/b"]),
        ("cut", ["runs/b/generations/news.txt has 2 outputs", "data.test.news has 4"]),
        ("renamed", ["other=runs/b has no test set news (it has old)", "~data.test.news"]),
    ],
)
def test_runs_that_cannot_be_compared(compare: Compare, home: Path, how: str, parts: list[str]) -> None:
    spoil(home, how)
    code, out, err = compare("run=runs/a", "other=runs/b")
    assert (code, out) == (2, "")
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["give one of run= and hyp="]),
        (["run=runs/a", "hyp=x", "other=y"], ["both set"]),
        (["run=runs/a"], ["other= is missing", "run=runs/a"]),
        (["run=[runs/a,runs/b]", "other=runs/b"], ["run=[runs/a,runs/b]", "other=[...]"]),
        (["run=runs/a", "other=nowhere"], ["other=nowhere is not a run folder"]),
        (["run=runs/a", "other=runs/b", "ref=x"], ["ref needs hyp="]),
        (["run=runs/a", "other=runs/b", "metrics.bootstrap=50"], ["resamples=N"]),
        (["run=runs/a", "other=runs/b", "~data.test.news"], ["no test set to compare on"]),
        (["hyp=corpus/news.de", "other=corpus/news.de"], ["ref= is missing"]),
        (["hyp=corpus/news.de", "other=nope", "ref=corpus/news.de"], ["other=nope", "no such file"]),
        (["hyp=corpus/news.de", "other=corpus/short.de", "ref=corpus/news.de"], ["other=corpus/short.de has 3"]),
        (["hyp=corpus/news.de", "other=corpus/news.de", "ref=[corpus/news.de,corpus/short.de]"], ["short.de has 3"]),
        (["hyp=corpus/news.de", "other=corpus/news.de", "ref=corpus/news.de", "source=corpus/short.de"], ["3 lines"]),
        (["hyp=corpus/news.de", "other=corpus/news.de", "ref=corpus/news.de", "data.root=x"], ["needs run="]),
        (["hyp=corpus/news.de", "other=corpus/news.de", "ref=corpus/news.de", "target_field=x"], ["ref=FILE.jsonl"]),
        (["hyp=corpus/news.de", "other=corpus/news.de", "ref=[dev.jsonl,corpus/news.de]"], ["ref=dev.jsonl", "one"]),
        (
            ["hyp=corpus/news.de", "other=corpus/news.de", "ref=corpus/news.de", "source=dev.jsonl"],
            ["source=dev.jsonl", "source_field"],
        ),
    ],
)
def test_mistakes(compare: Compare, arguments: list[str], parts: list[str]) -> None:
    code, out, err = compare(*arguments)
    assert (code, out) == (2, "")
    assert err.count("seq2seq: error: ") == 1
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"examples": -1}, "examples=-1: must be from 0"),
        ({"resamples": 1}, "resamples=1: must be from 2"),
        ({"trials": 0}, "trials=0: must be from 1"),
        ({"seed": -1}, "seed=-1: must be from 0"),
        ({"metrics": MetricsConfig(names=[])}, "metrics.names is empty"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CompareConfig(**settings)
