"""Files made to do harm: no code of theirs runs, nothing outside the run folder is read or written."""

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.cli.main import run_command
from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.models.base import Vocabulary
from seq2seq.models.build import build_model
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.tokenizers.pair import Tokenizers, train_tokenizers
from seq2seq.training.state import TrainState

CORPUS = "zero one\ntwo three\nfour five\nsix seven\n"
VALUES = {
    "name": "run",
    "tokenizer": {"kind": "word", "vocab_size": 20},
    "model": {"family": "gru", "d_model": 8, "embedding_size": 4, "encoder_size": 4, "attention_size": 4},
    "trainer": {"device": "cpu", "threads": 1, "precision": "fp32", "max_steps": 2},
    "search": {"max_length": 6},
    "metrics": {"names": ["bleu"], "bootstrap": 0},
}

COMMANDS = {"generate": [], "evaluate": [], "average": [], "compare": ["other={run}"]}  # that take a run


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text(CORPUS, encoding="utf-8")
    return tmp_path


def configured() -> Config:
    corpus = {"source": "text", "target": "text"}
    data = {"root": ".", "train": corpus, "valid": corpus, "test": {"news": corpus}}
    return parse({**VALUES, "data": data})


@pytest.fixture
def run(home: Path) -> Path:
    """A run folder as training leaves it, of a model that has learnt nothing."""
    config = configured()
    folder = home / "run"
    lines = CORPUS.splitlines()
    tokenizers: Tokenizers = train_tokenizers(lambda: iter(lines), lambda: iter(lines), config.tokenizer, seed=1)
    tokenizers.save(folder / "tokenizer")
    torch.manual_seed(1)
    size = tokenizers.source.vocab_size
    weights = build_model(config.model, Vocabulary(size, size, joint=True)).state_dict()
    store = CheckpointStore(folder / "checkpoints")
    fingerprints = {"tokenizer": tokenizers.fingerprint()}
    store.save(2, {"model": weights}, TrainState(step=2, history=[(2, 1.0)]).to_json(), fingerprints=fingerprints)
    store.link("last", 2)
    store.link("best", 2)
    (folder / "config.yaml").write_text(saved.to_yaml(config), encoding="utf-8")
    (folder / "results.json").write_text(
        json.dumps(
            {"complete": True, "best_step": 2, "test": {}, "objective": {"metric": "a", "mode": "max", "value": 1}}
        )
    )
    return folder


def refused(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """The one message of a command that ends with code 2."""
    capsys.readouterr()
    assert run_command(command, list(arguments)) == 2
    errors = capsys.readouterr().err
    assert errors.count("seq2seq: error: ") == 1
    assert "Traceback" not in errors
    return errors


# --- code -----------------------------------------------------------------------------------------------------


def test_the_bomb_is_one(home: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(home / "canary")))
    assert (home / "canary").exists()


@pytest.mark.parametrize(
    "file",
    ["checkpoints/best/model.safetensors", "checkpoints/best/manifest.json", "checkpoints/best/state.json",
     "tokenizer/tokenizer.json", "tokenizer/joint.vocab.txt", "config.yaml"],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "torch.save"])
def test_a_pickle_in_a_run_folder_is_refused_unopened(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, packed: bool
) -> None:
    bomb = Bomb(run.parent / "canary")
    if packed:
        torch.save({"model": bomb}, run / file)
    else:
        (run / file).write_bytes(pickle.dumps(bomb))
    message = refused(capsys, "generate", f"run={run}", "input=text")
    assert Path(file).name in message or "tokenizer" in message
    assert not bomb.canary.exists()


def test_other_pickles_beside_a_checkpoint_are_no_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = Bomb(run.parent / "canary")
    torch.save(bomb, run / "model.pt")
    refused(capsys, "generate", f"run={run}", f"checkpoint={run / 'model.pt'}", "input=text")
    assert not bomb.canary.exists()


@pytest.mark.parametrize("name", ["vectors.pt", "vectors.npy", "vectors.pkl", "vectors.txt", "vectors.gz"])
def test_a_pickle_of_word_vectors_is_refused(home: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bomb, path = Bomb(home / "canary"), home / name
    if name.endswith(".pt"):
        torch.save(bomb, path)
    elif name.endswith(".npy"):
        np.save(path, np.array([bomb], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(gzip.compress(pickle.dumps(bomb)) if name.endswith(".gz") else pickle.dumps(bomb))
    overrides = ["data.root=.", "data.train.source=text", "data.train.target=text", "data.valid.source=text",
                 "data.valid.target=text", "tokenizer=word", "tokenizer.vocab_size=20", "model=gru_tiny",
                 "model.tie_embeddings=decoder", "name=v", "optim.warmup_steps=0", "trainer.max_steps=1",
                 "trainer.device=cpu", f"tokenizer.source_vectors={name}"]  # fmt: skip
    assert name in refused(capsys, "train", *overrides)
    assert not bomb.canary.exists()


def test_pickles_in_the_cache_are_built_anew(home: Path) -> None:
    bomb = Bomb(home / "canary")
    overrides = ["data.root=.", "data.train.source=text", "data.train.target=text", "data.valid.source=text",
                 "data.valid.target=text", "tokenizer=word", "tokenizer.vocab_size=20",
                 "model.tie_embeddings=decoder"]  # fmt: skip
    assert run_command("prepare", overrides) == 0
    cached = [path for path in (home / "outputs" / ".cache").rglob("*") if path.is_file()]
    assert len(cached) > 10
    for path in cached:
        path.write_bytes(pickle.dumps(bomb))
    assert run_command("prepare", overrides) == 0
    assert not bomb.canary.exists()


@pytest.mark.parametrize(
    "text",
    ["name: !!python/object/apply:os.mkdir [{canary}]", "!!python/object/apply:os.mkdir [{canary}]",
     "name: !!python/name:os.mkdir", "_target_: os.mkdir\npath: {canary}",
     "model: {{_target_: os.mkdir, path: {canary}}}",
     "data: {{test: {{a: {{_target_: os.mkdir}}}}}}", "trainer: {{_target_: os.mkdir}}",
     "hydra: {{searchpath: [file://{canary}]}}", "hydra: {{launcher: {{_target_: os.mkdir, path: {canary}}}}}",
     "defaults: [{{override hydra/launcher: joblib}}]", "name: ${{oc.env:HOME}}", "seed: ${{oc.decode:1}}"],
)  # fmt: skip
def test_a_configuration_file_is_values_and_nothing_else(
    run: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    canary = run.parent / "canary"
    (run / "config.yaml").write_text(text.format(canary=canary))
    for command, more in COMMANDS.items():
        message = refused(capsys, command, f"run={run}", *(argument.format(run=run) for argument in more))
        assert os.environ["HOME"] not in message
    assert not canary.exists()


@pytest.mark.parametrize(
    "override",
    ["+_target_=os.mkdir", "_target_=os.mkdir", "+model._target_=os.mkdir", "++trainer._target_=os.mkdir",
     "+data.test.news._target_=os.mkdir", "+data.test.news={_target_:os.mkdir}", "+search={_target_:os.mkdir}",
     "trainer={_target_:os.mkdir}"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "generate"])
def test_target_is_an_unknown_key(run: Path, capsys: pytest.CaptureFixture[str], command: str, override: str) -> None:
    arguments = [f"run={run}"] if command == "generate" else ["name=x"]
    message = refused(capsys, command, *arguments, override)
    assert "_target_" in message


def test_an_alias_bomb_is_refused_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    (run / "config.yaml").write_text("\n".join(rows))
    assert "no aliases" in refused(capsys, "generate", f"run={run}")
    assert run_command("report", [str(run.parent)]) == 0
    assert "config.yaml is damaged" in capsys.readouterr().out


# --- places ---------------------------------------------------------------------------------------------------


def test_the_run_works_as_it_is(run: Path) -> None:
    assert run_command("evaluate", [f"run={run}"]) == 0
    assert (run / "evaluations" / "best" / "news.txt").read_text().count("\n") == 4


@pytest.mark.parametrize(
    "link", ["run.lock", "evaluations", "evaluations/best", "checkpoints/average", "tokenizer/joint.vocab.txt",
             "generations/news.txt", ".results.json.123"],
)  # fmt: skip
def test_a_link_out_of_the_run_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str], link: str) -> None:
    secret = run.parent / "secret"
    secret.write_text("mine")
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).unlink(missing_ok=True)
    (run / link).symlink_to(secret)
    for command, more in COMMANDS.items():
        message = refused(capsys, command, f"run={run}", *(argument.format(run=run) for argument in more))
        assert f"{run / link} is a link that points outside the run folder, to {secret}" in message
    assert secret.read_text() == "mine"


def test_a_link_to_a_device_without_end_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "generations").mkdir(exist_ok=True)
    (run / "generations" / "news.txt").unlink(missing_ok=True)
    (run / "generations" / "news.txt").symlink_to("/dev/zero")
    assert "news.txt is a link that points outside" in refused(capsys, "evaluate", f"run={run}")


def test_training_does_not_go_on_through_a_link(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = home / "secret"
    secret.write_text("mine")
    (home / "outputs" / "x").mkdir(parents=True)
    (home / "outputs" / "x" / "run.lock").symlink_to(secret)
    message = refused(capsys, "train", "name=x", "data.train.source=text", "data.train.target=text")
    assert "run.lock is a link" in message
    assert secret.read_text() == "mine"


def test_a_run_folder_may_itself_be_a_link_and_have_links_inside(run: Path) -> None:
    (run.parent / "elsewhere").symlink_to(run)
    assert (run / "checkpoints" / "best").is_symlink()
    assert run_command("evaluate", [f"run={run.parent / 'elsewhere'}"]) == 0


def test_a_file_laid_under_a_temporary_name_is_not_followed(run: Path) -> None:
    secret = run.parent / "secret"
    secret.write_text("mine")
    place = run / "evaluations" / "best"
    place.mkdir(parents=True)
    inside = run / "inside"
    inside.write_text("mine")
    (place / f".results.json.{os.getpid()}").symlink_to(inside)
    assert run_command("evaluate", [f"run={run}"]) == 0
    assert inside.read_text() == "mine"


@pytest.mark.parametrize("name", ["../../../out", "/tmp/out", "a/b", "..", ".hidden", "a\\b", "a\nb"])
def test_a_test_set_cannot_be_named_out_of_the_run_folder(
    run: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    config = saved.to_mapping(configured())
    config["data"]["test"] = {name: {"source": "text", "target": "text"}}
    (run / "config.yaml").write_text(json.dumps(config))  # which is YAML too
    before = sorted(run.parent.iterdir())
    assert "a test set's name is also a file name" in refused(capsys, "evaluate", f"run={run}")
    assert sorted(run.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", ".cache", "."])
def test_a_run_cannot_be_named_out_of_output_root(home: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    message = refused(capsys, "train", f"name={name}", "data.train.source=text", "data.train.target=text")
    assert f"name={name}: must be a folder below output_root" in message
    assert sorted(path.name for path in home.iterdir()) == ["text"]


def test_a_checkpoint_given_by_a_path_is_scored_inside_the_run_folder(run: Path) -> None:
    shutil.copytree(run / "checkpoints" / "step-00000002", run / "copy")
    shutil.copytree(run / "copy", run / "deep" / "copy")
    for path in ("copy", "deep/copy"):
        assert run_command("evaluate", [f"run={run}", f"checkpoint={run / path}"]) == 0
    assert all(path.parent == run / "evaluations" for path in (run / "evaluations").iterdir())
    assert len(list((run / "evaluations").iterdir())) == 2
    for path in ("copy/manifest.json", "copy/model.safetensors", "copy/state.json"):
        shutil.copy(run / path, run / Path(path).name)
    before = (run / "results.json").read_bytes()
    run_command("evaluate", [f"run={run}", "checkpoint=.."])  # the run folder, made to look like a checkpoint
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "a/../../../secret"])
def test_a_tokenizer_names_files_in_its_folder_only(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (run.parent / "secret").write_text("<pad>\n<unk>\n<s>\n</s>\nmine\n")
    path = run / "tokenizer" / "tokenizer.json"
    description = json.loads(path.read_text())
    description["tokenizers"]["joint"]["file"] = name
    path.write_text(json.dumps(description))
    message = refused(capsys, "generate", f"run={run}", "input=text")
    assert "mine" not in message
    assert "root:" not in message
