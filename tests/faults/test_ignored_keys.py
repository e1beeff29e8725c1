"""What is typed takes effect or is refused; numbers that mean nothing never win; outputs do not mix."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Run, TrainRun

from seq2seq.cli import commands
from seq2seq.errors import UserError
from seq2seq.models.output import OutputLayer
from seq2seq.pipeline.load import load

SHORT = ("search=greedy", "search.max_length=6", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.save_every=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, train_run: TrainRun) -> Run:
    return train_run(tmp_path_factory.mktemp("trained"), *SHORT)


@pytest.mark.parametrize(
    ("command", "typed", "reason"),
    [
        ("train", ["search.top_k=5"], r"search\.top_k=5 would have no effect because search\.sampling=false"),
        ("train", ["tokenizer.lowercase=true"], r"tokenizer\.lowercase=true would have no effect because tokenizer\.k"),
        ("prepare", ["tokenizer.lowercase=true"], r"tokenizer\.lowercase=true would have no effect"),
        ("generate", ["search.temperature=0.5"], r"search\.temperature=0\.5 would have no effect"),
        ("generate", ["search.n_best=3", "search.beam_size=3"], r"search\.n_best=3 needs format=jsonl"),
        ("generate", ["metrics.names=[bleu]"], r"metrics\.names has no effect on `seq2seq generate`"),
        ("generate", ["stream=true", "output=x"], "stream=true answers standard input"),
        ("evaluate", ["tokenizer.kind=bpe"], r"tokenizer\.kind has no effect on `seq2seq evaluate`"),
        ("evaluate", ["model.dropout=0.5"], r"model\.dropout has no effect"),
        ("evaluate", ["trainer.max_steps=5"], r"trainer\.max_steps has no effect"),
        ("evaluate", ["data.train.source=a"], r"data\.train\.source has no effect"),
        ("evaluate", ["overwrite=true"], "overwrite has no effect"),
        ("evaluate", ["search.seed=4"], r"search\.seed=4 would have no effect"),
    ],
)
def test_a_key_without_effect_is_refused(
    trained: Run, train_run: TrainRun, tmp_path: Path, command: str, typed: list[str], reason: str
) -> None:
    arguments = train_run.arguments(tmp_path) if command in ("train", "prepare") else [f"run={trained.folder}"]
    with pytest.raises(UserError, match=reason):
        commands.run(command, [*arguments, *typed])
    assert not (tmp_path / "run").exists()


def test_what_nobody_typed_is_not_mentioned(train_run: TrainRun, tmp_path: Path, files: list[str]) -> None:
    """Neither the other keys of a group, nor a key that is used in some jobs of a sweep."""
    words = train_run.arguments(tmp_path, *SHORT, "tokenizer=word", "model.tie_embeddings=none")
    words.remove("tokenizer=char")
    commands.run("train", words)
    log = train_run.at(tmp_path).log
    assert "WARNING" not in log.upper().replace("WARNINGS", "")
    assert "byte_fallback" not in log
    sweep = train_run.arguments(tmp_path, *SHORT, "name=sweep", "search.sampling=true,false", "search.top_k=3")
    commands.run("train", ["-m", *[o for o in sweep if o != "name=run" and o != "search=greedy"]])
    assert len(list((tmp_path / "sweep").glob("*/results.json"))) == 2


def test_a_new_test_set_of_a_complete_run_is_scored(train_run: TrainRun, tmp_path: Path, corpus: Path) -> None:
    run = train_run(tmp_path, *SHORT)
    before = run.results
    more = (f"+data.test.u.source={corpus}/valid.src", f"+data.test.u.target={corpus}/valid.tgt")
    train_run(tmp_path, *SHORT, *more)
    after = run.results
    assert after["test"]["back"] == before["test"]["back"]
    assert {key: value for key, value in after.items() if key not in ("test", "baselines")} == {
        key: value for key, value in before.items() if key not in ("test", "baselines")
    }
    commands.run("evaluate", [f"run={run.folder}", *(o.removeprefix("+") for o in more)])
    evaluated = json.loads((run.folder / "evaluations/best/results.json").read_text(encoding="utf-8"))
    assert after["test"]["u"] == evaluated["test"]["u"]
    assert len(run.outputs("u")) == 8
    content = (run.folder / "results.json").read_bytes()
    train_run(tmp_path, *SHORT, *more)
    assert (run.folder / "results.json").read_bytes() == content
    assert "nothing to do" in run.log


def test_a_finished_run_may_evaluate_at_other_steps_on_other_examples(train_run: TrainRun, tmp_path: Path) -> None:
    bleu = (*SHORT, "trainer.metric=valid/bleu")
    train_run(tmp_path, *bleu)
    run = train_run(tmp_path, *bleu, "trainer.max_steps=9", "trainer.eval_every=3", "trainer.eval_examples=8")
    assert sorted(run.curve("valid/bleu")) == [2, 4, 6, 9]
    assert [step for step, _ in run.state()["history"]] == [6, 9], "values on other examples are not compared"
    assert "the best checkpoint is chosen from now on" in run.log
    assert run.results["best_step"] in (6, 9)
    plateau = ("name=plateau", "optim.schedule=plateau", "optim.plateau_patience=1")
    train_run(tmp_path, *SHORT, *plateau)
    with pytest.raises(UserError, match=r"trainer\.eval_every: 2 there, 3 now"):
        train_run(tmp_path, *SHORT, *plateau, "trainer.max_steps=9", "trainer.eval_every=3")


@pytest.mark.parametrize("metric", ["accuracy", "ppl", "bleu"])
def test_logits_that_are_no_numbers_are_never_the_best(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """From the second evaluation on; before, all of their tokens counted as right."""
    project, evaluations = OutputLayer._project, [0]

    def broken(layer: OutputLayer, decoded: object) -> torch.Tensor:
        value = project(layer, decoded)  # type: ignore[arg-type]
        return value if torch.is_grad_enabled() or evaluations[0] < 2 else value * float("nan")

    from seq2seq.training.validation import Validator

    run_validation = Validator.run

    def counted(validator: Validator, model: object) -> object:
        evaluations[0] += 1
        return run_validation(validator, model)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputLayer, "_project", broken)
    monkeypatch.setattr(Validator, "run", counted)
    with pytest.raises(Exception, match="not a finite number"):
        train_run(tmp_path, *SHORT, f"trainer.metric=valid/{metric}")
    run = train_run.at(tmp_path)
    history = dict(map(tuple, run.state()["history"]))  # type: ignore[arg-type]
    assert history[2] is not None
    assert history[4] is None
    assert run.curve("valid/accuracy")[4] == 0
    assert (run.folder / "checkpoints" / "best").resolve().name == "step-00000002"
    assert "the loss on the validation set is not a finite number" in run.log


def test_python_takes_one_text_as_one_text(trained: Run) -> None:
    generator = load(trained.folder, overrides=["trainer.device=cpu"])
    assert generator.generate("abc dea") == generator.generate(["abc dea"])
    with pytest.raises(UserError, match="text 2 of 2 is None, which is not a string"):
        generator.generate(["abc", None])  # type: ignore[list-item]


@pytest.mark.parametrize("override", ["tokenizer.kind=bpe", "search.top_k=5", "metrics.names=[bleu]"])
def test_python_refuses_an_override_without_effect(trained: Run, override: str) -> None:
    with pytest.raises(UserError, match="no effect"):
        load(trained.folder, overrides=[override])


def test_a_co_process_gets_an_answer_for_each_line(trained: Run) -> None:
    """A pipe on either end, and the next line only when the one before is answered."""
    command = [
        sys.executable,
        "-m",
        "seq2seq",
        "generate",
        f"run={trained.folder}",
        "stream=true",
        "trainer.device=cpu",
    ]
    expected = load(trained.folder, overrides=["trainer.device=cpu"]).generate(["abc", "", "dea bad"])
    with subprocess.Popen([*command, "stream=true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(60, process.kill)
        timer.start()
        answers = []
        for line in ("abc", "", "dea bad"):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            answers.append(process.stdout.readline().decode())
        process.stdin.close()
        assert process.wait() == 0
        timer.cancel()
    assert answers == [f"{text}\n" for text in expected]


def test_two_processes_with_one_output_do_not_mix(trained: Run, tmp_path: Path) -> None:
    """The last to finish wins whole, and neither leaves anything else."""
    texts = {name: [f"{name * 3} {'abc'[i % 3] * 2}" for i in range(3)] for name in "ad"}
    expected = {
        name: "".join(f"{line}\n" for line in load(trained.folder, overrides=["trainer.device=cpu"]).generate(lines))
        for name, lines in texts.items()
    }
    processes = {}
    for name in texts:
        command = [sys.executable, "-m", "seq2seq", "generate", f"run={trained.folder}", f"output={tmp_path}/out"]
        processes[name] = subprocess.Popen(
            [*command, "trainer.device=cpu", "stream=false"], stdin=subprocess.PIPE, text=True
        )
    for process in processes.values():
        deadline = time.monotonic() + 60
        while not any(file.path.endswith(".part") for file in psutil.Process(process.pid).open_files()):
            assert time.monotonic() < deadline, "both are writing before either has an input"
            time.sleep(0.05)
    for name in texts:
        process = processes[name]
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in texts[name]))
        process.stdin.flush()
    for name in texts:
        assert processes[name].communicate()[0] is None
        assert processes[name].returncode == 0
        assert (tmp_path / "out").read_text(encoding="utf-8") in expected.values()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
