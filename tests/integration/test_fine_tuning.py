"""Runs that start from another one: which tokenizer they use, what they say, and that they then stand on their own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Run, TrainRun

from seq2seq.config import saved
from seq2seq.errors import UserError
from seq2seq.tokenizers.pair import load_tokenizers

SHORT = ("trainer.eval_examples=0", "search=greedy", "search.max_length=4", "trainer.max_steps=3",
         "optim.warmup_steps=0")  # fmt: skip
STILL = (*SHORT, "optim.lr=1e-12", "optim.eps=1")
BPE = ("tokenizer=bpe", "tokenizer.vocab_size=330")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, train_run: TrainRun) -> dict[str, Run]:
    """A run with characters, and one with subwords that also change from epoch to epoch."""
    root = tmp_path_factory.mktemp("bases")
    return {
        "char": train_run(root / "char", *SHORT),
        "bpe": train_run(root / "bpe", *SHORT, *BPE, "tokenizer.sampling_alpha=0.2"),
    }


def test_the_tokenizer_section_of_the_base_is_recorded(
    bases: dict[str, Run], train_run: TrainRun, tmp_path: Path
) -> None:
    """Also where nobody typed one, and so the default would have stood there."""
    base = bases["bpe"]
    run = train_run(tmp_path, *STILL, f"trainer.init_from={base.folder}", "tokenizer=bpe")
    ours, theirs = (saved.load(each.folder / "config.yaml").tokenizer for each in (run, base))
    assert ours == theirs
    assert (ours.kind.value, ours.vocab_size, ours.sampling_alpha) == ("bpe", 330, 0.2)
    assert f"starting from the weights of step 3 in {base.folder}/checkpoints/step-00000003" in run.log


@pytest.mark.parametrize(
    ("base", "typed"),
    [
        ("char", ["tokenizer.kind=unigram"]), ("char", ["tokenizer.user_symbols=[xy]"]),
        ("bpe", ["tokenizer=bpe", "tokenizer.sampling_alpha=0.1"]), ("bpe", ["tokenizer=char"]),
        ("bpe", ["tokenizer=unigram"]),
    ],
)  # fmt: skip
def test_a_tokenizer_key_without_effect_is_refused(
    bases: dict[str, Run], train_run: TrainRun, tmp_path: Path, base: str, typed: list[str]
) -> None:
    with pytest.raises(UserError, match=r"cannot take effect: trainer\.init_from=.* brings its tokenizer"):
        train_run(tmp_path, *STILL, f"trainer.init_from={bases[base].folder}", *typed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["transformer", "gru"])
def test_an_own_tokenizer_keeps_the_rows_that_both_know(
    bases: dict[str, Run], train_run: TrainRun, tmp_path: Path, model: str
) -> None:
    base = bases["char"]
    if model == "gru":
        base = train_run(tmp_path / "base", *SHORT, model=model)
    start = (f"trainer.init_from={base.folder}", "trainer.init_tokenizer=own")
    run = train_run(tmp_path, *STILL, *BPE, *start, model=model)
    here, there = (load_tokenizers(each.folder / "tokenizer").target for each in (run, base))
    pieces, known = ([each.pieces([i])[0] for i in range(each.vocab_size)] for each in (here, there))
    ours, theirs = run.weights("last"), base.weights("best")
    table = next(name for name in ours if ours[name].size(0) == here.vocab_size)
    shared = [(i, known.index(piece)) for i, piece in enumerate(pieces) if piece in known]
    assert 250 < len(shared) < len(pieces)
    for i, j in shared:
        torch.testing.assert_close(ours[table][i], theirs[table][j], rtol=0, atol=1e-9)
    others = sorted(set(range(len(pieces))) - {i for i, _ in shared})
    assert (ours[table][others].std(dim=1) > 0.01).all(), "drawn, not left at zero"
    for name in ours.keys() - {table}:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-9)
    assert f"target tokens: {len(shared)} of {len(pieces)} are known there" in run.log
    assert saved.load(run.folder / "config.yaml").tokenizer.kind.value == "bpe"


def test_own_needs_a_base(train_run: TrainRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a run to start from"):
        train_run(tmp_path, *SHORT, "trainer.init_tokenizer=own")


def test_a_run_stands_on_its_own(
    bases: dict[str, Run], train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on when its base is spelled in another way, moved, or gone; another base is refused."""
    shutil.copytree(bases["char"].folder, tmp_path / "base", symlinks=True)
    shutil.copytree(bases["bpe"].folder, tmp_path / "other", symlinks=True)
    monkeypatch.chdir(tmp_path)
    first = train_run(tmp_path, *SHORT, "trainer.init_from=base")
    assert first.state()["step"] == 3
    for step, spelling in enumerate([f"{tmp_path}/base", "./base", "moved", "moved"], start=4):
        if step == 6:
            Path("base").rename("moved")
        if step == 7:
            shutil.rmtree("moved")
        run = train_run(tmp_path, *SHORT, f"trainer.init_from={spelling}", f"trainer.max_steps={step}")
        assert run.state()["step"] == step
    with pytest.raises(UserError, match="base changed since"):
        train_run(tmp_path, *SHORT, "trainer.init_from=other", "trainer.max_steps=9")
    with pytest.raises(UserError, match="nowhere is neither a run folder nor"):
        train_run(tmp_path, *SHORT, "trainer.init_from=nowhere", "trainer.max_steps=9")
    assert json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())["step"] == 7
