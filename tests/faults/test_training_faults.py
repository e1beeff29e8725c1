"""Numbers that go wrong, memory that runs out, disks that fill, signals at bad moments: what becomes of a run."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from seq2seq.errors import Interrupted, TrainingError
from seq2seq.metrics import Score

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "model=transformer_tiny", "model.d_model=16", "model.d_ff=32", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=1", "tokenizer=char", "optim.warmup_steps=4", "optim.lr=0.002", "metrics.names=[bleu]",
    "metrics.bootstrap=0", "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32",
    "trainer.attention_images=0", "trainer.eval_examples=4", "trainer.log_every=2", "trainer.max_steps=12",
    "trainer.eval_every=5", "trainer.save_every=4", "trainer.batch_tokens=256",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random words and the same words backwards."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(5)
    for split, count in (("train", 150), ("valid", 8)):
        lines = [" ".join(random.choice(list("abcde"), 3 * int(random.integers(1, 6)))) for _ in range(count)]
        (folder / f"{split}.src").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{line[::-1]}\n" for line in lines), encoding="utf-8")
    return folder


def arguments(corpus: Path, out: Path, *overrides: str) -> list[str]:
    files = [f"data.{split}.{side}={corpus}/{split}.{end}" for split in ("train", "valid")
             for side, end in (("source", "src"), ("target", "tgt"))]  # fmt: skip
    return [*TINY, *files, f"output_root={out}", "name=run", *overrides]


def train(*args: str) -> None:
    from seq2seq.cli.train import run

    run(list(args))


def curves(out: Path) -> list[tuple[int, str, float]]:
    lines = (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["tag"], r["value"]) for r in records if not r["tag"].startswith(("perf/", "system/"))]


def last_weights(out: Path) -> bytes:
    return (out / "run" / "checkpoints" / "last" / "model.safetensors").read_bytes()


def test_too_many_skipped_updates_end_the_run_with_the_batch(corpus: Path, tmp_path: Path) -> None:
    """A learning rate that destroys the model at its first update; the batch that showed it can be computed again."""
    overrides = ("optim.lr=1e30", "trainer.max_skipped_steps=3", "trainer.eval_every=1000", "trainer.max_steps=1000")
    with pytest.raises(TrainingError, match=r"(?s)not a finite number: \d+ updates in a row.*failed") as caught:
        train(*arguments(corpus, tmp_path, *overrides))
    assert "trainer.max_skipped_steps=3" in str(caught.value)
    failed = tmp_path / "run/checkpoints/failed"
    tensors = load_file(failed / "batch.safetensors")
    assert {name.split(".", 2)[2] for name in tensors} == {"src", "tgt_in", "rows", "labels", "indices"}
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(failed / "model.safetensors").values())
    shown = [value for _, tag, value in curves(tmp_path) if tag == "train/skipped_updates"]
    assert sum(shown) >= 3
    log = (tmp_path / "run/train.log").read_text()
    assert "updates were skipped" in log
    assert str(caught.value) in log, "the log of the run says why it ended"
    done = subprocess.run([sys.executable, ROOT / "scripts/replay_batch.py", tmp_path / "run"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "without a finite loss of their own: " in done.stdout


def test_the_batch_is_kept_while_a_checkpoint_is_written(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save in the background clears away what looks like another save's remains: the batch waits for its end."""
    from seq2seq import checkpoint

    prune, write, half_written, cleared = (
        checkpoint.CheckpointStore.prune, checkpoint._write_folder, threading.Event(), threading.Event()
    )  # fmt: skip

    def slow_prune(self: checkpoint.CheckpointStore, keep: Any) -> None:
        half_written.wait(0.3)
        prune(self, keep)
        cleared.set()

    def slow_write(folder: Path, *args: Any, **kwargs: Any) -> None:
        write(folder, *args, **kwargs)
        if folder.name.startswith("failed"):
            half_written.set()
            cleared.wait(0.3)
        else:
            cleared.clear()

    monkeypatch.setattr(checkpoint.CheckpointStore, "prune", slow_prune)
    monkeypatch.setattr(checkpoint, "_write_folder", slow_write)
    overrides = ("optim.lr=1e30", "trainer.max_skipped_steps=3", "trainer.eval_every=1000", "trainer.max_steps=1000",
                 "trainer.save_every=1", "trainer.log_every=5")  # fmt: skip
    with pytest.raises(TrainingError, match=r"the batch is in .*failed"):
        train(*arguments(corpus, tmp_path, *overrides))
    assert (tmp_path / "run/checkpoints/failed/batch.safetensors").exists()


def test_fp16_that_overflows_at_every_step_advises(corpus: Path, tmp_path: Path) -> None:
    """The scale falls below one before the run is given up: until then fp16 only looks for its scale."""
    overrides = ("trainer.precision=fp16", "optim.lr=1e30", "trainer.eval_every=1000", "trainer.max_steps=1000")
    with pytest.raises(TrainingError, match=r"trainer\.precision=bf16 or fp32 \(the loss scale has fallen to 0\.\d+\)"):
        train(*arguments(corpus, tmp_path, *overrides))
    scales = [value for _, tag, value in curves(tmp_path) if tag == "train/loss_scale"]
    assert min(scales) < 1.0 <= scales[-2]


def test_a_diverged_job_does_not_end_the_sweep(corpus: Path, tmp_path: Path) -> None:
    jobs = ("optim.lr=1e30,0.002", "trainer.max_skipped_steps=2", "trainer.max_steps=6", "-m")
    with pytest.raises(TrainingError, match="jobs that could not go on"):
        train(*arguments(corpus, tmp_path, *jobs))
    rates = {path.parent: "lr: 0.002\n" in path.read_text() for path in (tmp_path / "run").glob("*/config.yaml")}
    assert {folder: (folder / "results.json").exists() for folder in rates} == rates
    assert sorted(rates.values()) == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_counts_as_the_worst(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from seq2seq import metrics

    monkeypatch.setattr(metrics, "score", lambda *_, **__: {"bleu": Score(value, "none")})
    overrides = ("trainer.metric=valid/bleu", "trainer.patience=2", "trainer.max_steps=8", "trainer.eval_every=2")
    train(*arguments(corpus, tmp_path, *overrides))
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["objective"]["value"] == -1e9
    assert results["train"]["steps"] == 4, "a run that only patience ends does end"
    assert "counts as worse than any other" in (tmp_path / "run/train.log").read_text()


def test_a_batch_that_does_not_fit_is_computed_in_halves(corpus: Path, tmp_path: Path) -> None:
    """A process that may have little more memory than it has before its first step: the kernel refuses, it goes on."""
    random = np.random.default_rng(1)
    for end in ("src", "tgt"):
        lines = [" ".join(random.choice(list("abcde"), 120)) for _ in range(64)]
        (tmp_path / f"long.{end}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    script = """
import resource, sys, torch
from seq2seq.cli import train as verb
from seq2seq.train_step import TrainStep
rehearse = TrainStep.rehearse
def limited(self, micro_batches):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
    rehearse(self, micro_batches)
TrainStep.rehearse = limited
verb.run(sys.argv[1:])
"""
    overrides = [f"data.train.source={tmp_path}/long.src", f"data.train.target={tmp_path}/long.tgt",
                 "search.batch_size=2", "trainer.batch_tokens=16384",
                 "trainer.max_steps=4", "trainer.eval_every=4", "model.d_ff=256", "search.max_length=20"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments(corpus, tmp_path, *overrides)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "is computed in halves" in done.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["train"]["steps"] == 4
    assert [value for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
            if (value := json.loads(line))["tag"] == "perf/split_batches"]  # fmt: skip


@pytest.mark.slow
def test_ranks_end_together_where_one_has_no_memory(corpus: Path, tmp_path: Path) -> None:
    """One of two processes may not take more memory once training has begun; neither is left waiting."""
    script = tmp_path / "train.py"
    script.write_text("""
import os, resource, sys
from seq2seq.cli.main import main
from seq2seq.train_step import TrainStep
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
         *arguments(corpus, tmp_path, "trainer.max_steps=1000")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode != 0
    assert "out of memory" in done.stderr
    assert "lower trainer.batch_tokens=256" in done.stderr
    assert "exitcode  : 3" in done.stderr or "exitcode: 3" in done.stderr


def test_a_full_disk_at_a_save_may_be_survived(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses to write larger files while the saves of steps 4 and 8 are under way."""
    from seq2seq.checkpoint import CheckpointStore

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

    train(*arguments(corpus, tmp_path / "whole"))
    monkeypatch.setattr(CheckpointStore, "save", refused)
    with pytest.raises(TrainingError, match="cannot write"):
        train(*arguments(corpus, tmp_path / "stop"))
    train(*arguments(corpus, tmp_path / "warn", "trainer.save_failure=warn"))
    assert "training goes on without it" in (tmp_path / "warn/run/train.log").read_text()
    assert last_weights(tmp_path / "warn") == last_weights(tmp_path / "whole")
    assert curves(tmp_path / "warn") == curves(tmp_path / "whole")
    monkeypatch.setattr(CheckpointStore, "save", save)
    train(*arguments(corpus, tmp_path / "stop"))
    assert last_weights(tmp_path / "stop") == last_weights(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_abandons_an_evaluation_and_the_resumed_run_begins_with_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from seq2seq.evaluation import Evaluator

    overrides = ("optim.ema_decay=0.9", "trainer.average=last")
    train(*arguments(corpus, tmp_path / "whole", *overrides))
    generate = Evaluator.generate
    calls: list[int] = []

    def disturbed(self: Evaluator, *args: Any, **kwargs: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 2:  # the evaluation at step 10
            os.kill(os.getpid(), number)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "generate", disturbed)
    with pytest.raises(Interrupted) as stop:
        train(*arguments(corpus, tmp_path / "parts", *overrides))
    assert stop.value.exit_code == {signal.SIGTERM: 143, signal.SIGUSR1: 75}[number]
    state = json.loads((tmp_path / "parts/run/checkpoints/last/state.json").read_text())
    assert state["step"] == 10
    assert [step for step, _ in state["history"]] == [5]
    train(*arguments(corpus, tmp_path / "parts", *overrides))
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")
    assert last_weights(tmp_path / "parts") == last_weights(tmp_path / "whole")
    best = "run/checkpoints/best/model.safetensors"
    assert (tmp_path / "parts" / best).read_bytes() == (tmp_path / "whole" / best).read_bytes()


@pytest.mark.parametrize("moment", ["before an evaluation", "at the last save"])
def test_a_signal_at_a_bad_moment_is_heeded(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The step is over, the next question whether to stop is minutes away or never comes."""
    from seq2seq.train_step import TrainStep

    look, calls = TrainStep.require_finite_weights, {"before an evaluation": 2, "at the last save": 8}
    seen: list[int] = []

    def disturbed(self: TrainStep) -> None:  # evaluations of steps 5, 10, 12, saves of 4, 5, 8, 10, 12
        seen.append(1)
        if len(seen) == calls[moment]:
            os.kill(os.getpid(), signal.SIGTERM)
        look(self)

    monkeypatch.setattr(TrainStep, "require_finite_weights", disturbed)
    with pytest.raises(Interrupted) as stop:
        train(*arguments(corpus, tmp_path))
    assert stop.value.exit_code == 143
    state = json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())
    evaluations = [step for step, _ in state["history"]]
    assert (state["step"], evaluations) == ((5, []) if moment == "before an evaluation" else (12, [5, 10, 12]))
    monkeypatch.undo()
    train(*arguments(corpus, tmp_path))
    assert (tmp_path / "run/results.json").exists()


def test_a_signal_in_the_last_evaluation_of_a_resumed_run_is_heeded(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to train, and yet the run is not complete: no scores without the last evaluation."""
    from seq2seq.evaluation import Evaluator

    generate = Evaluator.generate
    train(*arguments(corpus, tmp_path / "whole"))

    def disturbed(self: Evaluator, model: Any, store: Any, **kwargs: Any) -> list[str]:
        if "step 12 " in (tmp_path / "parts/run/train.log").read_text():
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(self, model, store, **kwargs)

    monkeypatch.setattr(Evaluator, "generate", disturbed)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(*arguments(corpus, tmp_path / "parts"))
        assert not (tmp_path / "parts/run/results.json").exists()
    monkeypatch.undo()
    train(*arguments(corpus, tmp_path / "parts"))
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_memory_that_runs_out_without_a_word_is_told(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.train_step import TrainStep

    monkeypatch.setattr(TrainStep, "require_finite_weights", lambda self: bytearray(1 << 60))
    with pytest.raises(TrainingError, match=r"^out of memory: lower trainer\.batch_tokens=256"):
        train(*arguments(corpus, tmp_path))


def test_a_signal_does_not_wait_for_an_epoch_that_is_being_drawn(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.data.store import TokenStore

    sampling = ("tokenizer=unigram", "tokenizer.vocab_size=270", "tokenizer.sampling_alpha=0.3")
    train(*arguments(corpus, tmp_path / "whole", *sampling))
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
            train(*arguments(corpus, tmp_path / "parts", *sampling))
        assert not over.is_set()
    finally:
        over.set()
    monkeypatch.undo()
    train(*arguments(corpus, tmp_path / "parts", *sampling))
    assert last_weights(tmp_path / "parts") == last_weights(tmp_path / "whole")
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_a_damaged_best_checkpoint_gives_way_to_the_next_best(corpus: Path, tmp_path: Path) -> None:
    overrides = ("trainer.keep_last=3", "trainer.save_every=2", "trainer.eval_every=2")
    with pytest.raises(Interrupted):
        train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9", *overrides))
    while not (tmp_path / "run/results.json").exists():
        checkpoints = tmp_path / "run/checkpoints"
        best, last = (checkpoints / name for name in ("best", "last"))
        if best.exists() and best.resolve() != last.resolve():
            break
        with suppress(Interrupted):
            train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9", *overrides))
    damaged = best.resolve() / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    train(*arguments(corpus, tmp_path, *overrides))
    assert "the next best one takes its place" in (tmp_path / "run/train.log").read_text()
    assert json.loads((tmp_path / "run/results.json").read_text())["complete"]


def test_a_test_set_may_be_added_to_a_run_under_way(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9"))
    added = [f"+data.test.more.source={corpus}/valid.src", f"+data.test.more.target={corpus}/valid.tgt"]
    train(*arguments(corpus, tmp_path, *added))
    assert "bleu" in json.loads((tmp_path / "run/results.json").read_text())["test"]["more"]


def test_another_machine_is_allowed_and_said(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9", "trainer.eval_examples=0"))
    train(*arguments(corpus, tmp_path, "trainer.threads=2", "trainer.max_steps=4", "trainer.eval_examples=0"))
    log = (tmp_path / "run/train.log").read_text()
    assert "going on with threads 1 then, 2 now: not bit for bit" in log
    assert (tmp_path / "run/results.json").exists()


@pytest.mark.slow
def test_another_number_of_processes_is_allowed_and_said(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9"))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "seq2seq", "train",
         *arguments(corpus, tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on with ranks 1 then, 2 now: not bit for bit" in (tmp_path / "run/train.log").read_text()
    assert json.loads((tmp_path / "run/results.json").read_text())["train"]["steps"] == 12


def test_the_thread_that_prepares_batches_never_leaves_training_waiting(corpus: Path, tmp_path: Path) -> None:
    from seq2seq.stream import BatchStream, StreamConfig, _next_of

    class Store:
        """Its files are gone once the epoch has been planned."""

        source_lengths = target_lengths = np.full(30, 5, dtype=np.int32)

        @property
        def source_ids(self) -> Any:
            raise OSError("the file has vanished")

    stream = BatchStream(lambda epoch: Store(), StreamConfig(50, 1, 9, 9, seed=1))  # type: ignore[arg-type,return-value]
    with pytest.raises(OSError, match="vanished") as caught:
        next(stream.steps(0, 0))
    assert caught.value.__notes__ == ["while preparing micro-batch 0 of 3 of epoch 0"]
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join()
    empty: Queue[Any] = Queue()
    assert "has ended" in str(_next_of(empty, dead))


def test_the_heaviest_batches_are_found(corpus: Path, tmp_path: Path) -> None:
    from itertools import islice

    from seq2seq.stream import BatchStream, StreamConfig

    stream = _stream(corpus, tmp_path, StreamConfig(300, 1, 256, 256, seed=1))
    heaviest = [micro.batch for micro in stream.heaviest(0)]
    positions: Callable[[Any], int] = lambda batch: batch.src.numel() + batch.tgt_in.numel()  # noqa: E731
    steps = stream.steps(0, 0)
    batches = [step.micro_batches[0].batch for step in islice(steps, 100) if step.epoch == 0]
    steps.close()
    assert isinstance(stream, BatchStream)
    assert max(map(positions, heaviest)) == max(map(positions, batches))
    assert max(batch.src.size(1) for batch in heaviest) == max(batch.src.size(1) for batch in batches)


def _stream(corpus: Path, cache: Path, config: Any) -> Any:
    from seq2seq.data.corpus import CorpusConfig, DataConfig
    from seq2seq.data.prepare import prepare
    from seq2seq.stream import BatchStream
    from seq2seq.tokenizer import TokenizerConfig, TokenizerKind

    data = DataConfig(
        root=str(corpus),
        train=CorpusConfig(source="train.src", target="train.tgt"),
        valid=CorpusConfig(source="valid.src", target="valid.tgt"),
    )
    tokenizer = TokenizerConfig(kind=TokenizerKind.char, vocab_size=400)
    prepared = prepare(data, tokenizer, cache_root=cache, seed=1, log=lambda text: None)
    return BatchStream(lambda epoch: prepared.train, config)


@pytest.mark.gpu
def test_a_gpu_run_that_is_stopped_ends_bit_for_bit_the_same(corpus: Path, tmp_path: Path) -> None:
    gpu = ("trainer.device=cuda", "trainer.deterministic=true", "model.dropout=0.1")
    train(*arguments(corpus, tmp_path / "whole", *gpu))
    while not (tmp_path / "parts/run/results.json").exists():
        try:
            train(*arguments(corpus, tmp_path / "parts", "trainer.stop_after_minutes=1e-9", *gpu))
        except Interrupted:
            continue
    assert last_weights(tmp_path / "parts") == last_weights(tmp_path / "whole")
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_on_a_gpu_is_computed_in_halves(corpus: Path, tmp_path: Path) -> None:
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
        train(*arguments(corpus, tmp_path, *overrides))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "is computed in halves" in (tmp_path / "run/train.log").read_text()
