"""The command line as users type it, in processes of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
from hydra.core.config_store import ConfigStore

from seq2seq.cli import commands

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_help_and_version(seq2seq: Command) -> None:
    for arguments in ((), ("--help",)):
        done = seq2seq(*arguments)
        assert done.returncode == 0
        assert "train" in done.stdout
        assert "generate" in done.stdout
    assert seq2seq("--version").stdout.startswith("seq2seq 0.")
    done = seq2seq("trian")
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr


@pytest.mark.parametrize(
    "command", ["train", "check", "prepare", "evaluate", "generate", "average", "report", "compare"]
)
def test_help_of_each_verb_shows_examples(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance()  # Hydra copies all that is in it for each line of a group
    monkeypatch.setattr(store, "repo", {"hydra": store.repo["hydra"]})
    with pytest.raises(SystemExit) as end:
        commands.run(command, ["--help"])
    assert end.value.code in (0, None)
    shown = capsys.readouterr().out
    assert shown.count(f"  seq2seq {command} ") + shown.count(f"| seq2seq {command} ") >= 5
    if command in ("train", "check", "prepare"):
        assert "transformer_tiny" in shown
        assert "experiment" in shown


def test_train_leaves_what_the_readme_says(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.yaml", "provenance.json", "train.log", "metrics.jsonl", "tensorboard", "data_report.json", "tokenizer",
        "checkpoints", "generations", "results.json",
    }  # fmt: skip
    for name in ("last", "best"):
        assert (trained / "checkpoints" / name / "model.safetensors").is_file()
    results = json.loads((trained / "results.json").read_text())
    assert results["complete"] is True
    assert results["train"]["steps"] == 30
    assert results["objective"]["metric"] == "valid/loss"
    assert results["model"]["parameters"] > 1000
    assert set(results["test"]["news"]["bleu"]) >= {"score", "signature", "low", "high"}
    for line in (trained / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert set(record) == {"step", "tag", "value", "wall_time"}
        assert record["tag"].split("/")[0] in ("train", "valid", "test", "perf", "system")
    log = (trained / "train.log").read_text()
    assert "\x1b" not in log
    assert [bool(re.search(r" \d\d:\d\d left$", line)) for line in log.splitlines() if "tokens/s" in line] == [True] * 3


def test_tensorboard_shows_the_same_numbers(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for tag in ("train/loss", "valid/loss", "valid/bleu", "perf/padding_share"):
        expected = [(line["step"], line["value"]) for line in lines if line["tag"] == tag]
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in shown] == [step for step, _ in expected]
        assert [value for _, value in shown] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert events.Tags()["images"]
    assert any("samples" in tag for tag in events.Tags()["tensors"])


def test_scores_equal_sacrebleu_on_the_written_files(trained: Path, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "news.de", "-i", trained / "generations" / "news.txt", "-m", "bleu", "chrf",
         "--chrf-word-order", "2", "-w", "6"],
        cwd=home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    scores = json.loads((trained / "results.json").read_text())["test"]["news"]
    bleu, chrf = json.loads(done.stdout)
    assert bleu["score"] == pytest.approx(scores["bleu"]["score"], abs=1e-5)
    assert chrf["score"] == pytest.approx(scores["chrf"]["score"], abs=1e-5)


def test_evaluate_repeats_the_scores_of_training(trained: Path, seq2seq: Command) -> None:
    done = seq2seq("evaluate", "run=outputs/trained")
    assert done.returncode == 0, done.stderr
    again = json.loads((trained / "evaluations" / "best" / "results.json").read_text())["test"]["news"]
    first = json.loads((trained / "results.json").read_text())["test"]["news"]
    assert again == first
    assert first["bleu"]["signature"] in done.stdout


def test_evaluate_scores_only_the_sets_named(seq2seq: Command, trained: Path) -> None:
    done = seq2seq(
        "evaluate", "run=outputs/trained", "+data.test.other.source=valid.en", "+data.test.other.target=valid.de"
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads((trained / "evaluations/best/results.json").read_text())["test"]) == {"other"}


def test_generate_keeps_lines_aligned_whatever_they_hold(seq2seq: Command, trained: Path) -> None:
    text = "12\n\n   \n3\u2028 4\u0085\n</s> <pad>\r\n\x00\x0b\x0c\n" + "9" * 2000 + "\n77"
    done = seq2seq("generate", "run=outputs/trained", stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 8
    assert lines[1] == lines[2] == ""
    alone = [seq2seq("generate", "run=outputs/trained", stdin=line).stdout for line in ("12", "77")]
    assert alone == [lines[0] + "\n", lines[7] + "\n"]
    assert "truncated" in done.stderr


def test_generate_from_files_and_as_json(seq2seq: Command, trained: Path, home: Path) -> None:
    done = seq2seq("generate", "run=outputs/trained", "input=news.en", "output=out.txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (home / "out.txt").read_text() == (trained / "generations" / "news.txt").read_text()
    records = home / "records.jsonl"
    records.write_text("".join(json.dumps({"source": line}) + "\n" for line in ("1 2", "", "3")), encoding="utf-8")
    done = seq2seq("generate", "run=outputs/trained", "input=records.jsonl", "format=jsonl", "search.n_best=3",
                   "attention=true", "alignments=true")  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3
    assert answers[1]["text"] == ""
    best = answers[0]["nbest"]
    assert len(best) == 3
    assert [b["score"] for b in best] == sorted((b["score"] for b in best), reverse=True)
    assert len(best[0]["attention"]) == len(best[0]["tokens"]) == len(best[0]["alignments"])
    assert sum(best[0]["attention"][0]) == pytest.approx(1, abs=1e-3)
    assert len(best[0]["attention"][0]) == len(best[0]["source_tokens"])


def test_generate_into_a_closed_pipe(home: Path, trained: Path) -> None:
    command = f"{sys.executable} -m seq2seq generate run=outputs/trained input=train.en | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_python_call_equals_the_command(seq2seq: Command, trained: Path) -> None:
    import seq2seq as package

    outputs = package.load(trained).generate(["12", "", "345"])
    done = seq2seq("generate", "run=outputs/trained", stdin="12\n\n345\n")
    assert done.stdout == "".join(f"{line}\n" for line in outputs)


def test_an_ensemble_of_a_run_with_itself_is_the_run(seq2seq: Command, trained: Path) -> None:
    one = seq2seq("generate", "run=outputs/trained", "input=news.en")
    two = seq2seq("generate", "run=[outputs/trained,outputs/trained]", "input=news.en")
    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout


def test_the_same_command_again_changes_nothing(seq2seq: Command, trained: Path, overrides: tuple[str, ...]) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in trained.rglob("*")
        if path.is_file() and path.name not in ("train.log", "run.lock")
    }
    done = seq2seq("train", "name=trained", *overrides)
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_configuration_is_refused_with_both_ways_out(
    seq2seq: Command, trained: Path, overrides: tuple[str, ...]
) -> None:
    done = seq2seq("train", "name=trained", *overrides, "optim.lr=0.02")
    assert done.returncode == 2
    for word in ("optim.lr", "0.01", "0.02", "name=", "overwrite=true"):
        assert word in done.stderr


def test_a_raised_limit_goes_on(seq2seq: Command, home: Path, trained: Path, overrides: tuple[str, ...]) -> None:
    shutil.copytree(trained, home / "outputs" / "longer", symlinks=True)
    done = seq2seq("train", "name=longer", *overrides, "trainer.max_steps=33")
    assert done.returncode == 0, done.stderr
    assert "resuming from step 30" in done.stderr
    assert json.loads((home / "outputs/longer/results.json").read_text())["train"]["steps"] == 33


def test_a_moved_run_folder_still_generates(seq2seq: Command, home: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "elsewhere", symlinks=True)
    moved = seq2seq("generate", f"run={tmp_path}/elsewhere", stdin="12\n", cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    assert moved.stdout == seq2seq("generate", "run=outputs/trained", stdin="12\n").stdout


def test_fine_tuning_starts_from_the_other_run(
    seq2seq: Command, trained: Path, home: Path, overrides: tuple[str, ...]
) -> None:
    done = seq2seq(
        "train",
        "name=tuned",
        *overrides,
        "trainer.init_from=outputs/trained",
        "trainer.max_steps=5",
        "optim.lr=1e-9",
    )
    assert done.returncode == 0, done.stderr
    before = json.loads((trained / "results.json").read_text())["valid"]["loss"]
    after = json.loads((home / "outputs/tuned/results.json").read_text())["valid"]["loss"]
    assert after == pytest.approx(before, abs=1e-4)


def test_average_of_one_checkpoint_is_that_checkpoint(seq2seq: Command, trained: Path) -> None:
    done = seq2seq("average", "run=outputs/trained", "count=1")
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    mean = load_file(trained / "checkpoints/average/model.safetensors")
    last = load_file(trained / "checkpoints/last/model.safetensors")
    assert all((mean[name] == last[name]).all() for name in last)
    assert seq2seq("average", "run=outputs/trained", "count=99").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_signals_save_and_tell(home: Path, number: int, code: int, overrides: tuple[str, ...]) -> None:
    name = f"signal{code}"
    arguments = ["train", f"name={name}", *overrides, "trainer.max_steps=100000"]
    messages = home / f"{name}.txt"
    process = processes.start(processes.command, arguments, Path(os.devnull), messages, messages, home)
    metrics = home / "outputs" / name / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, number)
    ended = processes.wait(process, timeout=60)
    errors = messages.read_text(encoding="utf-8")
    assert ended == code, errors[-2000:]
    assert "Traceback" not in errors
    assert (home / "outputs" / name / "checkpoints" / "last" / "manifest.json").is_file()


def test_a_sweep_without_a_name_is_called_by_what_was_chosen(seq2seq: Command, home: Path) -> None:
    done = seq2seq("train", "-m", "data=demo_translation", "model=gru_tiny", "seed=1,2", "data.train.source=nowhere")
    assert done.returncode == 2
    assert "data.train.source=nowhere" in done.stderr
    assert (home / "outputs/demo_translation-gru_tiny/multirun.yaml").is_file()


@pytest.mark.slow
def test_a_sweep_trains_reports_and_is_not_run_twice(seq2seq: Command, home: Path, overrides: tuple[str, ...]) -> None:
    arguments = ("train", "-m", "name=sweep", *overrides, "trainer.max_steps=6", "seed=1,2")
    done = seq2seq(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = sorted(path for path in (home / "outputs/sweep").iterdir() if path.is_dir())
    assert len(runs) == 2
    assert all((run / "results.json").is_file() and len(run.name) <= 69 for run in runs)
    again = seq2seq(*arguments)
    assert again.returncode == 0
    assert again.stderr.count("nothing to do") == 2
    table = seq2seq("report", "outputs/sweep").stdout
    assert table.count("complete") == 2
    assert "seed" in table
    # a job of a sweep equals the same run alone
    alone = seq2seq("train", "name=alone", *overrides, "trainer.max_steps=6", "seed=2")
    assert alone.returncode == 0, alone.stderr
    value = json.loads((home / "outputs/alone/results.json").read_text())["valid"]["loss"]
    losses = {json.loads((run / "results.json").read_text())["valid"]["loss"] for run in runs}
    assert value in losses


@pytest.mark.slow
def test_optuna_sweep(seq2seq: Command, home: Path, overrides: tuple[str, ...]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = seq2seq(
        "train", "-m", "name=optuna", *[o for o in overrides if not o.startswith("optim.lr")], "trainer.max_steps=6",
        "hydra/sweeper=optuna", "hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=1", "optim.lr=interval(0.001,0.01)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([path for path in (home / "outputs/optuna").iterdir() if path.is_dir()]) == 2
    assert (home / "outputs/optuna/optimization_results.yaml").is_file()
