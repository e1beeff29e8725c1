"""What training promises: accumulation, ranks and interruptions do not change what is computed."""

import os
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from safetensors.torch import load_file

from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.data.loader import BatchLoader
from seq2seq.data.prepare import prepare
from seq2seq.data.store import TokenStore
from seq2seq.errors import Interrupted, TrainingError, UserError
from seq2seq.system.distributed import World
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind

# No dropout; and an epsilon above rounding noise, which Adam would blow up to whole steps where a gradient is zero
# (the keys' biases: softmax does not see them).
STILL = ("model.dropout=0", "optim.eps=0.001")


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], *, tolerance: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if tolerance == 0.0:
            assert torch.equal(value, second[name]), name
        else:
            torch.testing.assert_close(
                value, second[name], atol=tolerance, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("model", ["copying", pytest.param("transformer", marks=pytest.mark.slow)])
def test_stop_and_resume_equals_training_through(train_run: Any, tmp_path: Path, model: str) -> None:
    """A signal after some steps, then the same command: final weights and curves bit for bit, dropout on."""
    whole = train_run(tmp_path / "whole", "trainer.max_steps=6", model=model)
    parts = train_run.at(tmp_path / "parts")
    stops: list[int] = []
    while not (parts.folder / "results.json").exists():
        try:  # 0.0 minutes: ends after each single step
            train_run(tmp_path / "parts", "trainer.max_steps=6", "trainer.stop_after_minutes=1e-9", model=model)
        except Interrupted as stop:
            stops.append(stop.exit_code)
    assert stops == 6 * [75]  # the last one leaves the scoring to do
    assert_equal(whole.weights(), parts.weights())
    assert_equal(whole.weights("best"), parts.weights("best"))
    assert whole.curves() == parts.curves()


@pytest.mark.slow  # tests/faults/test_kills.py has faster ones
def test_killed_run_goes_on_bit_for_bit(train_run: Any, tmp_path: Path) -> None:
    """SIGKILL somewhere in the middle: the last checkpoint is enough, curves have no gap and no double."""
    overrides = ("trainer.max_steps=40", "trainer.eval_every=10")
    whole, killed = train_run(tmp_path / "whole", *overrides), train_run.at(tmp_path / "killed")
    command = ["train", *train_run.arguments(tmp_path / "killed", *overrides)]
    process = processes.start(processes.command, command, *3 * [Path(os.devnull)])
    deadline = time.monotonic() + 120
    while not (killed.folder / "checkpoints" / "step-00000008").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    processes.wait(process)
    assert not (killed.folder / "results.json").exists()
    train_run(tmp_path / "killed", *overrides)
    assert_equal(whole.weights(), killed.weights())
    assert whole.curves() == killed.curves()


@pytest.mark.parametrize("model", ["transformer", "gru", "copying"])
def test_micro_batches_equal_one_batch(train_run: Any, tmp_path: Path, model: str) -> None:
    """Every example of the epoch in one step, whether as one batch or as several: the same update."""
    still = (*STILL, "optim.warmup_steps=2", "trainer.max_steps=3", "trainer.eval_every=3")
    one = train_run(tmp_path / "one", "trainer.batch_tokens=100000", *still, model=model)
    many = train_run(tmp_path / "many", "trainer.batch_tokens=500", "trainer.accumulate=100", *still, model=model)
    assert one.state()["target_tokens"] == many.state()["target_tokens"]
    assert_equal(one.weights(), many.weights(), tolerance=1e-5)


@pytest.mark.parametrize("model", ["copying", pytest.param("transformer", marks=pytest.mark.slow)])
def test_two_ranks_equal_one_process(train_run: Any, tmp_path: Path, model: str) -> None:
    """Two gloo processes that share each step's micro-batches against one that accumulates them."""
    still = (*STILL, "trainer.eval_every=6")
    one, two = train_run(tmp_path / "one", "trainer.accumulate=2", *still, model=model), train_run.at(tmp_path / "two")
    command = ["train", *train_run.arguments(tmp_path / "two", *still, model=model)]
    messages = tmp_path / "messages.txt"
    codes = processes.run_ranks(processes.command, command, Path(os.devnull), messages, messages)
    assert codes == [0, 0], messages.read_text(encoding="utf-8")[-3000:]
    assert_equal(one.weights(), two.weights(), tolerance=1e-5)
    curves = [[c for c in run.curves() if c[1].startswith(("train/loss", "valid/"))] for run in (one, two)]
    assert [c[:2] for c in curves[0]] == [c[:2] for c in curves[1]]
    np.testing.assert_allclose([c[2] for c in curves[0]], [c[2] for c in curves[1]], rtol=1e-3)


def test_every_example_is_seen_once_an_epoch_across_ranks(corpus: Path, tmp_path: Path) -> None:
    data = DataConfig(
        root=str(corpus),
        train=CorpusConfig(source="train.src", target="train.tgt"),
        valid=CorpusConfig(source="valid.src", target="valid.tgt"),
    )
    tokenizer = TokenizerConfig(kind=TokenizerKind.char, vocab_size=400)
    prepared = prepare(data, tokenizer, cache_root=tmp_path, seed=1, log=lambda text: None)
    seen: list[int] = []
    tokens = 0
    for rank in range(3):
        loader = BatchLoader(lambda epoch: prepared.train, batch_tokens=200, accumulate=2, seed=1, world=World(rank, 3))
        steps = loader.steps(0, 0)
        for step in islice(steps, 1000):
            if step.epoch > 0:
                break
            tokens += step.target_tokens if rank == 0 else 0
            seen += [int(i) for micro in step.micro_batches if micro.weight for i in micro.batch.indices]
        steps.close()
    assert sorted(seen) == list(range(len(prepared.train)))
    assert tokens == int(prepared.train.target_lengths.sum())


@pytest.mark.parametrize(
    "overrides",
    [("optim.ema_decay=0.9",), ("tokenizer=unigram", "tokenizer.vocab_size=300", "tokenizer.sampling_alpha=0.3"),
     ("optim.schedule=plateau", "optim.plateau_patience=1", "trainer.metric=valid/ppl"),
     ("trainer.precision=fp16",), ("trainer.average=last", "trainer.average_checkpoints=2"),
     ("model.copy=true", "trainer.checkpoint_activations=true")],
    ids=["ema", "sampling", "plateau", "fp16", "average", "copying"],
)  # fmt: skip
def test_resume_is_exact_with_every_option(train_run: Any, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    whole, parts = train_run(tmp_path / "whole", *overrides), train_run.at(tmp_path / "parts")
    resumed = False
    while not (parts.folder / "results.json").exists():
        limit = "trainer.stop_after_minutes=null" if resumed else "trainer.stop_after_minutes=0.0005"
        try:
            train_run(tmp_path / "parts", limit, *overrides)
        except Interrupted:
            resumed = True
    assert resumed
    assert_equal(whole.weights(), parts.weights())
    assert_equal(whole.weights("best"), parts.weights("best"))


def test_the_coverage_loss_counts_from_its_first_step_by_its_weight(train_run: Any, tmp_path: Path) -> None:
    few = ("trainer.max_steps=6", "trainer.eval_every=6", "optim.lr=0.02")
    cases = {"never": (6, 1.0), "late": (3, 1.0), "unweighted": (0, 0.0), "first": (0, 1.0)}
    runs = {
        name: train_run(
            tmp_path / name, *few, f"trainer.coverage_loss_start={start}", f"trainer.coverage_loss_weight={weight}",
            model="copying",
        )
        for name, (start, weight) in cases.items()
    }  # fmt: skip
    assert_equal(runs["never"].weights(), runs["unweighted"].weights())
    attention = {name: run.weights()["score.v.weight"] for name, run in runs.items()}
    assert not torch.equal(attention["late"], attention["never"])
    assert not torch.equal(attention["late"], attention["first"])
    losses = {name: run.curve("train/loss") for name, run in runs.items()}
    assert losses["late"][2] == losses["never"][2]
    assert losses["late"][4] == losses["never"][4], "updates of steps 1 to 3 are the same, step 4 shows step 3's"
    assert losses["late"][6] != losses["never"][6]
    covered = runs["first"].curve("train/coverage_loss")
    assert len(covered) == 3
    assert min(covered.values()) > 0


def test_an_end_by_patience_is_saved(train_run: Any, tmp_path: Path) -> None:
    """The evaluation that ends a run is in its last checkpoint, whenever checkpoints are due."""
    overrides = ("trainer.patience=2", "trainer.max_steps=null", "optim.lr=1e-12",
                 "trainer.metric=valid/bleu", "trainer.eval_every=3", "trainer.save_every=1000")  # fmt: skip
    run = train_run(tmp_path, *overrides)
    assert [step for step, _ in run.state()["history"]] == [3, 6, 9]
    assert run.state()["step"] == 9
    before = (run.folder / "results.json").stat().st_mtime_ns
    train_run(tmp_path, *overrides)
    assert (run.folder / "results.json").stat().st_mtime_ns == before


def test_a_lowered_limit_still_evaluates(train_run: Any, tmp_path: Path) -> None:
    schedule = ("optim.warmup_steps=1",)
    with pytest.raises(Interrupted):
        train_run(tmp_path, "trainer.stop_after_minutes=1e-9", *schedule)
    assert train_run.at(tmp_path).state()["history"] == []
    run = train_run(tmp_path, "trainer.max_steps=1", *schedule)
    assert [step for step, _ in run.state()["history"]] == [1]
    assert run.curve("valid/loss") == {1: pytest.approx(run.results["valid"]["loss"], rel=1e-5)}
    assert run.state("best")["step"] == run.results["best_step"] == 1


def test_weights_that_are_no_numbers_are_never_saved(train_run: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a finite number"):
        train_run(tmp_path, "optim.lr=1e30", "trainer.save_every=1", "trainer.log_every=1000")
    for path in (tmp_path / "run/checkpoints").glob("step-*/model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path


def test_a_corpus_with_nothing_left_is_refused(train_run: Any, tmp_path: Path) -> None:
    (tmp_path / "blank").write_text("\n" * 150, encoding="utf-8")
    with pytest.raises(UserError, match="no example is left"):
        train_run(tmp_path, f"data.train.target={tmp_path}/blank")


@pytest.mark.parametrize(("byte", "bit"), [(-1, 0x80), (-2, 0x01)], ids=["no token at all", "another token"])
def test_damaged_data_too_large_to_be_read_first_end_the_run_before_a_save(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte: int, bit: int
) -> None:
    monkeypatch.setattr(TokenStore, "VERIFY_ON_OPEN_BYTES", 0)
    command = (tmp_path, "trainer.max_steps=4", "overwrite=true")
    run = train_run(*command)
    sound = run.weights()
    ids = max(tmp_path.glob(".cache/stores/*/source.ids"), key=lambda path: path.stat().st_size)
    content = bytearray(ids.read_bytes())
    content[byte] ^= bit
    ids.write_bytes(content)
    with pytest.raises(TrainingError, match=r"changed on disk.*Run the same command again to rebuild it"):
        train_run(*command)
    assert_equal(run.weights(), sound)  # of the earlier run, which is back
    train_run(*command)
    assert_equal(run.weights(), sound)
