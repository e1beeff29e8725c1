"""Numbers that go wrong, memory that runs out, disks that fill, signals at bad moments: what becomes of a run."""

import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seq2seq.errors import Interrupted, TrainingError
from seq2seq.metrics import Score, Signature

ROOT = Path(__file__).resolve().parents[2]


def assert_ended_alike(run: Any, other: Any) -> None:
    first, second = (each.folder / "checkpoints" / "last" / "model.safetensors" for each in (run, other))
    assert first.read_bytes() == second.read_bytes()
    assert run.curves() == other.curves()


def test_too_many_skipped_updates_end_the_run_with_the_batch(train_run: Any, tmp_path: Path) -> None:
    """A learning rate that destroys the model at its first update; the batch that showed it can be computed again."""
    overrides = ("optim.lr=1e30", "trainer.max_skipped_steps=3", "trainer.eval_every=1000", "trainer.max_steps=1000")
    with pytest.raises(TrainingError, match=r"(?s)not a finite number: \d+ updates in a row.*failed") as caught:
        train_run(tmp_path, *overrides)
    assert "trainer.max_skipped_steps=3" in str(caught.value)
    run = train_run.at(tmp_path)
    tensors = run.weights("failed", "batch")
    assert {name.split(".", 2)[2] for name in tensors} == {"src", "tgt_in", "rows", "labels", "indices"}
    assert all(bool(tensor.isfinite().all()) for tensor in run.weights("failed").values())
    assert sum(run.curve("train/skipped_updates").values()) >= 3
    assert "updates were skipped" in run.log
    assert str(caught.value) in run.log, "the log of the run says why it ended"
    replay = [sys.executable, ROOT / "scripts/reliability/replay_batch.py", run.folder]
    done = subprocess.run(replay, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "without a finite loss of their own: " in done.stdout


def test_the_batch_is_kept_while_a_checkpoint_is_written(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save in the background clears away what looks like another save's remains: the batch waits for its end."""
    from seq2seq.runs import checkpoint
    from seq2seq.runs.checkpoint_store import CheckpointStore

    prune, sync, half_written, cleared = (
        CheckpointStore.prune, checkpoint.sync, threading.Event(), threading.Event()
    )  # fmt: skip

    def slow_prune(self: CheckpointStore, keep: Any) -> None:
        half_written.wait(0.3)
        prune(self, keep)
        cleared.set()

    def slow_sync(folder: Path) -> None:
        sync(folder)
        if folder.name.startswith("failed."):  # all but renamed
            half_written.set()
            cleared.wait(0.3)
        elif folder.name.startswith("step-"):
            cleared.clear()

    monkeypatch.setattr(CheckpointStore, "prune", slow_prune)
    monkeypatch.setattr(checkpoint, "sync", slow_sync)
    overrides = ("optim.lr=1e30", "trainer.max_skipped_steps=3", "trainer.eval_every=1000", "trainer.max_steps=1000",
                 "trainer.save_every=1", "trainer.log_every=5")  # fmt: skip
    with pytest.raises(TrainingError, match=r"the batch is in .*failed"):
        train_run(tmp_path, *overrides)
    assert (tmp_path / "run/checkpoints/failed/batch.safetensors").exists()


def test_fp16_that_overflows_at_every_step_advises(train_run: Any, tmp_path: Path) -> None:
    """The scale falls below one before the run is given up: until then fp16 only looks for its scale."""
    overrides = ("trainer.precision=fp16", "optim.lr=1e30", "trainer.eval_every=1000", "trainer.max_steps=1000")
    with pytest.raises(TrainingError, match=r"trainer\.precision=bf16 or fp32 \(the loss scale has fallen to 0\.\d+\)"):
        train_run(tmp_path, *overrides)
    scales = list(train_run.at(tmp_path).curve("train/loss_scale").values())
    assert min(scales) < 1.0 <= scales[-2]


def test_a_diverged_job_does_not_end_the_sweep(train_run: Any, tmp_path: Path) -> None:
    jobs = ("optim.lr=1e30,0.002", "trainer.max_skipped_steps=2", "trainer.max_steps=6", "-m")
    with pytest.raises(TrainingError, match="jobs that failed"):
        train_run(tmp_path, *jobs)
    rates = {path.parent: "lr: 0.002\n" in path.read_text() for path in (tmp_path / "run").glob("*/config.yaml")}
    assert {folder: (folder / "results.json").exists() for folder in rates} == rates
    assert sorted(rates.values()) == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_counts_as_the_worst(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from seq2seq import metrics

    monkeypatch.setattr(metrics, "score", lambda *_, **__: {"bleu": Score(value, Signature.parse("none"))})
    overrides = ("trainer.metric=valid/bleu", "trainer.patience=2", "trainer.max_steps=8", "trainer.eval_every=2")
    run = train_run(tmp_path, *overrides)
    assert run.results["objective"]["value"] == -1e9
    assert run.results["train"]["steps"] == 4, "a run that only patience ends does end"
    assert "counts as worse than any other" in run.log


def test_a_batch_that_does_not_fit_is_computed_in_halves(train_run: Any, tmp_path: Path) -> None:
    """In its steps a process may have little more memory than before the first: the kernel refuses, it goes on."""
    random = np.random.default_rng(1)
    for end in ("src", "tgt"):
        lines = [" ".join(random.choice(list("abcde"), 120)) for _ in range(64)]
        (tmp_path / f"long.{end}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    script = """
import resource, sys, torch
from seq2seq.cli import train as command
from seq2seq.training.step import TrainStep
ceiling = 0
def limited(work):
    def within_limit(*arguments, **named):
        global ceiling
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        ceiling = ceiling or used + (144 << 20)  # malloc asks for 64 MiB more than it needs
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))
        try:
            return work(*arguments, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return within_limit
TrainStep.warm_up_memory, TrainStep.run = limited(TrainStep.warm_up_memory), limited(TrainStep.run)
command.run(sys.argv[1:])
"""
    overrides = [f"data.train.source={tmp_path}/long.src", f"data.train.target={tmp_path}/long.tgt",
                 "search.batch_size=2", "trainer.batch_tokens=16384",
                 "trainer.max_steps=2", "trainer.eval_every=2", "optim.warmup_steps=1", "model.d_ff=256",
                 "search.max_length=20"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *train_run.arguments(tmp_path, *overrides)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "is computed in halves" in done.stderr
    run = train_run.at(tmp_path)
    assert run.results["train"]["steps"] == 2
    assert run.curve("perf/split_batches")


@pytest.mark.slow
def test_ranks_end_together_where_one_has_no_memory(train_run: Any, tmp_path: Path) -> None:
    """One of two processes may not take more memory once training has begun; neither is left waiting."""
    script = tmp_path / "train.py"
    script.write_text("""
import os, resource, sys
from seq2seq.cli.main import main
from seq2seq.training.step import TrainStep
run = TrainStep.run
def limited(self, batches, **named):
    if os.environ["RANK"] == "1" and named["step"] == 3:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, used))
        import torch
        torch.empty(1 << 30, dtype=torch.uint8)  # as a larger batch would
    run(self, batches, **named)
TrainStep.run = limited
main()
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", script, "train",
         *train_run.arguments(tmp_path, "trainer.max_steps=1000")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode != 0
    assert "out of memory" in done.stderr
    assert "lower trainer.batch_tokens=256" in done.stderr
    assert "exitcode  : 3" in done.stderr or "exitcode: 3" in done.stderr


def test_a_full_disk_at_a_save_may_be_survived(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses to write larger files while the saves of steps 4 and 8 are under way."""
    from seq2seq.runs.checkpoint_store import CheckpointStore

    save = CheckpointStore.save
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def refused(self: CheckpointStore, step: int, *args: Any, **kwargs: Any) -> Path:
        if step < 10:
            # Smaller than the checkpoint's files, and larger than the logs, which the loop goes on writing meanwhile.
            resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, limits[1]))
        try:
            return save(self, step, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    whole = train_run(tmp_path / "whole")
    monkeypatch.setattr(CheckpointStore, "save", refused)
    with pytest.raises(TrainingError, match="cannot write"):
        train_run(tmp_path / "stop")
    warned = train_run(tmp_path / "warn", "trainer.save_failure=warn")
    assert "training continues without it" in warned.log
    assert_ended_alike(warned, whole)
    monkeypatch.setattr(CheckpointStore, "save", save)
    assert_ended_alike(train_run(tmp_path / "stop"), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_abandons_an_evaluation_and_the_resumed_run_begins_with_it(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from seq2seq.inference.evaluator import Evaluator

    overrides = ("optim.ema_decay=0.9", "trainer.average=last")
    whole = train_run(tmp_path / "whole", *overrides)
    generate = Evaluator.generate
    calls: list[int] = []

    def disturbed(self: Evaluator, *args: Any, **kwargs: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 2:  # the evaluation at step 10
            os.kill(os.getpid(), number)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "generate", disturbed)
    with pytest.raises(Interrupted) as stop:
        train_run(tmp_path / "parts", *overrides)
    assert stop.value.exit_code == {signal.SIGTERM: 143, signal.SIGUSR1: 75}[number]
    state = train_run.at(tmp_path / "parts").state()
    assert state["step"] == 10
    assert [step for step, _ in state["history"]] == [5]
    parts = train_run(tmp_path / "parts", *overrides)
    assert_ended_alike(parts, whole)
    best = "checkpoints/best/model.safetensors"
    assert (parts.folder / best).read_bytes() == (whole.folder / best).read_bytes()


@pytest.mark.parametrize("moment", ["before an evaluation", "at the last save"])
def test_a_signal_at_a_bad_moment_is_heeded(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The step is over, the next question whether to stop is minutes away or never comes."""
    from seq2seq.training.step import TrainStep

    look, calls = TrainStep.require_finite_weights, {"before an evaluation": 2, "at the last save": 8}
    seen: list[int] = []

    def disturbed(self: TrainStep) -> None:  # evaluations of steps 5, 10, 12, saves of 4, 5, 8, 10, 12
        seen.append(1)
        if len(seen) == calls[moment]:
            os.kill(os.getpid(), signal.SIGTERM)
        look(self)

    monkeypatch.setattr(TrainStep, "require_finite_weights", disturbed)
    with pytest.raises(Interrupted) as stop:
        train_run(tmp_path)
    assert stop.value.exit_code == 143
    state = train_run.at(tmp_path).state()
    evaluations = [step for step, _ in state["history"]]
    assert (state["step"], evaluations) == ((5, []) if moment == "before an evaluation" else (12, [5, 10, 12]))
    monkeypatch.undo()
    assert train_run(tmp_path).results["complete"]


def test_a_signal_in_the_last_evaluation_of_a_resumed_run_is_heeded(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to train, and yet the run is not complete: no scores without the last evaluation."""
    from seq2seq.inference.evaluator import Evaluator

    generate = Evaluator.generate
    whole, parts = train_run(tmp_path / "whole"), train_run.at(tmp_path / "parts")

    def disturbed(self: Evaluator, model: Any, store: Any, **kwargs: Any) -> list[str]:
        if "step 12 " in parts.log:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(self, model, store, **kwargs)

    monkeypatch.setattr(Evaluator, "generate", disturbed)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train_run(tmp_path / "parts")
        assert not (parts.folder / "results.json").exists()
    monkeypatch.undo()
    assert_ended_alike(train_run(tmp_path / "parts"), whole)


def test_memory_that_runs_out_without_a_word_is_told(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.training.step import TrainStep

    monkeypatch.setattr(TrainStep, "require_finite_weights", lambda self: bytearray(1 << 60))
    with pytest.raises(TrainingError, match=r"^out of memory: lower trainer\.batch_tokens=256"):
        train_run(tmp_path)


def test_a_signal_does_not_wait_for_an_epoch_that_is_being_drawn(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.data.store import TokenStore

    sampling = ("tokenizer=unigram", "tokenizer.vocab_size=270", "tokenizer.sampling_alpha=0.3")
    whole = train_run(tmp_path / "whole", *sampling)
    resampled = TokenStore.resampled
    over = threading.Event()

    def slow(self: TokenStore, *args: Any, epoch: int, **kwargs: Any) -> TokenStore:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            assert over.wait(60)
        return resampled(self, *args, epoch=epoch, **kwargs)

    monkeypatch.setattr(TokenStore, "resampled", slow)
    try:
        with pytest.raises(Interrupted, match="SIGTERM after step"):
            train_run(tmp_path / "parts", *sampling)
        assert not over.is_set()
    finally:
        over.set()
    monkeypatch.undo()
    assert_ended_alike(train_run(tmp_path / "parts", *sampling), whole)


def test_a_damaged_best_checkpoint_gives_way_to_the_next_best(train_run: Any, tmp_path: Path) -> None:
    overrides = ("trainer.keep_last=3", "trainer.save_every=2", "trainer.eval_every=2")
    with pytest.raises(Interrupted):
        train_run(tmp_path, "trainer.stop_after_minutes=1e-9", *overrides)
    while not (tmp_path / "run/results.json").exists():
        checkpoints = tmp_path / "run/checkpoints"
        best, last = (checkpoints / name for name in ("best", "last"))
        if best.exists() and best.resolve() != last.resolve():
            break
        with suppress(Interrupted):
            train_run(tmp_path, "trainer.stop_after_minutes=1e-9", *overrides)
    damaged = best.resolve() / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    run = train_run(tmp_path, *overrides)
    assert "using the next best checkpoint instead" in run.log
    assert run.results["complete"]


@pytest.mark.gpu
def test_a_gpu_run_that_is_stopped_ends_bit_for_bit_the_same(train_run: Any, tmp_path: Path) -> None:
    gpu = ("trainer.device=cuda", "trainer.deterministic=true", "model.dropout=0.1")
    whole, parts = train_run(tmp_path / "whole", *gpu), train_run.at(tmp_path / "parts")
    while not (parts.folder / "results.json").exists():
        try:
            train_run(tmp_path / "parts", "trainer.stop_after_minutes=1e-9", *gpu)
        except Interrupted:
            continue
    assert_ended_alike(parts, whole)


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_on_a_gpu_is_computed_in_halves(train_run: Any, tmp_path: Path) -> None:
    import torch

    random = np.random.default_rng(1)
    for end in ("src", "tgt"):
        lines = [" ".join(random.choice(list("abcde"), 120)) for _ in range(512)]
        (tmp_path / f"long.{end}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    overrides = [f"data.train.source={tmp_path}/long.src", f"data.train.target={tmp_path}/long.tgt",
                 "trainer.device=cuda", "trainer.batch_tokens=131072", "trainer.max_steps=4", "trainer.eval_every=4",
                 "model.d_ff=256", "search.batch_size=2"]  # fmt: skip
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (512 << 20) / total))
    try:
        train_run(tmp_path, *overrides)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "is computed in halves" in train_run.at(tmp_path).log
