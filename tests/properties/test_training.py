"""What training promises: accumulation, ranks and interruptions do not change what is computed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

TINY = (
    "model=transformer_tiny", "model.d_model=32", "model.d_ff=64", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=1", "tokenizer=char", "optim.warmup_steps=4", "optim.lr=0.002", "metrics.names=[bleu]",
    "metrics.bootstrap=0", "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32",
    "trainer.attention_images=0", "trainer.eval_examples=4", "trainer.log_every=2", "trainer.max_steps=12",
    "trainer.eval_every=5", "trainer.save_every=4", "trainer.batch_tokens=256",
)  # fmt: skip
GRU = ("model=gru_tiny", "model.d_model=32", "model.embedding_size=16", "model.encoder_size=16", *TINY[6:])

COPYING = (*GRU, "tokenizer.joint=true", "model.copy=true", "model.coverage=true")

# No dropout; and an epsilon above rounding noise, which Adam would blow up to whole steps where a gradient is zero
# (the keys' biases: softmax does not see them).
STILL = ("model.dropout=0", "optim.eps=0.001")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random words and the same words backwards."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(5)
    for split, count in (("train", 150), ("valid", 8)):
        lines = [
            " ".join("".join(random.choice(list("abcde"), 3)) for _ in range(random.integers(1, 6)))
            for _ in range(count)
        ]
        (folder / f"{split}.src").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{line[::-1]}\n" for line in lines), encoding="utf-8")
    return folder


def arguments(corpus: Path, out: Path, *overrides: str, model: tuple[str, ...] = TINY) -> list[str]:
    return [
        *model,
        *(f"data.{split}.{side}={corpus}/{split}.{side[:3].replace('sou', 'src').replace('tar', 'tgt')}"
          for split in ("train", "valid") for side in ("source", "target")),
        f"output_root={out}",
        "name=run",
        *overrides,
    ]  # fmt: skip


def train(*args: str) -> None:
    from seq2seq.cli.train import run

    run(list(args))


def weights(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(out / "run" / "checkpoints" / name / "model.safetensors")


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], *, tolerance: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if tolerance == 0.0:
            assert torch.equal(value, second[name]), name
        else:
            torch.testing.assert_close(
                value, second[name], atol=tolerance, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
            )


def curves(out: Path) -> list[tuple[int, str, float]]:
    lines = (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["tag"], r["value"]) for r in records if not r["tag"].startswith(("perf/", "system/"))]


@pytest.mark.parametrize("model", [TINY, COPYING], ids=["transformer", "gru-copying"])
def test_stop_and_resume_equals_training_through(corpus: Path, tmp_path: Path, model: tuple[str, ...]) -> None:
    """A signal after some steps, then the same command: final weights and curves bit for bit, dropout on."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(*arguments(corpus, whole, "trainer.max_steps=8", model=model))

    from seq2seq.errors import Interrupted

    stops: list[int] = []
    while not (parts / "run" / "results.json").exists():
        try:  # 0.0 minutes: ends after each single step
            train(*arguments(corpus, parts, "trainer.max_steps=8", "trainer.stop_after_minutes=1e-9", model=model))
        except Interrupted as stop:
            stops.append(stop.exit_code)
    assert stops == 8 * [75]  # the last one leaves the scoring to do
    assert_equal(weights(whole), weights(parts))
    assert_equal(weights(whole, "best"), weights(parts, "best"))
    assert curves(whole) == curves(parts)


def test_killed_run_goes_on_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    """SIGKILL somewhere in the middle: the last checkpoint is enough, curves have no gap and no double."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    overrides = ("trainer.max_steps=40", "trainer.eval_every=10")
    train(*arguments(corpus, whole, *overrides))
    command = [sys.executable, "-m", "seq2seq", "train", *arguments(corpus, killed, *overrides)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "run" / "checkpoints" / "step-00000008").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "run" / "results.json").exists()
    train(*arguments(corpus, killed, *overrides))
    assert_equal(weights(whole), weights(killed))
    assert curves(whole) == curves(killed)


@pytest.mark.parametrize("model", [TINY, GRU, COPYING], ids=["transformer", "gru", "gru-copying"])
def test_micro_batches_equal_one_batch(corpus: Path, tmp_path: Path, model: tuple[str, ...]) -> None:
    """Every example of the epoch in one step, whether as one batch or as several: the same update."""
    still = (*STILL, "optim.warmup_steps=2", "trainer.max_steps=3", "trainer.eval_every=3")
    train(*arguments(corpus, tmp_path / "one", "trainer.batch_tokens=100000", *still, model=model))
    train(
        *arguments(corpus, tmp_path / "many", "trainer.batch_tokens=500", "trainer.accumulate=100", *still, model=model)
    )
    states = [json.loads((tmp_path / out / "run/checkpoints/last/state.json").read_text()) for out in ("one", "many")]
    assert states[0]["target_tokens"] == states[1]["target_tokens"]
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "many"), tolerance=1e-5)


@pytest.mark.parametrize("model", [TINY, COPYING], ids=["transformer", "gru-copying"])
def test_two_ranks_equal_one_process(corpus: Path, tmp_path: Path, model: tuple[str, ...]) -> None:
    """Two gloo processes that share each step's micro-batches against one that accumulates them."""
    still = (*STILL, "trainer.eval_every=6")
    train(*arguments(corpus, tmp_path / "one", "trainer.accumulate=2", *still, model=model))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "seq2seq",
         "train", *arguments(corpus, tmp_path / "two", *still, model=model)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), tolerance=1e-5)
    one, two = (
        [c for c in curves(tmp_path / out) if c[1].startswith(("train/loss", "valid/"))] for out in ("one", "two")
    )
    assert [c[:2] for c in one] == [c[:2] for c in two]
    np.testing.assert_allclose([c[2] for c in one], [c[2] for c in two], rtol=1e-3)


def test_every_example_is_seen_once_an_epoch_across_ranks(corpus: Path, tmp_path: Path) -> None:
    from itertools import islice

    from seq2seq.data.corpus import CorpusConfig, DataConfig
    from seq2seq.data.prepare import prepare
    from seq2seq.stream import BatchStream, StreamConfig
    from seq2seq.tokenizer import TokenizerConfig, TokenizerKind

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
        stream = BatchStream(lambda epoch: prepared.train, StreamConfig(200, 2, 256, 256, seed=1, rank=rank, size=3))
        steps = stream.steps(0, 0)
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
def test_resume_is_exact_with_every_option(corpus: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    from seq2seq.errors import Interrupted

    train(*arguments(corpus, tmp_path / "whole", *overrides))
    resumed = False
    while not (tmp_path / "parts/run/results.json").exists():
        limit = "trainer.stop_after_minutes=null" if resumed else "trainer.stop_after_minutes=0.0005"
        try:
            train(*arguments(corpus, tmp_path / "parts", limit, *overrides))
        except Interrupted:
            resumed = True
    assert resumed
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_equal(weights(tmp_path / "whole", "best"), weights(tmp_path / "parts", "best"))


def test_the_coverage_loss_counts_from_its_first_step_by_its_weight(corpus: Path, tmp_path: Path) -> None:
    few = ("trainer.max_steps=6", "trainer.eval_every=6")
    cases = {"never": 6, "late": 3, "unweighted": 0, "first": 0}
    for name, start in cases.items():
        weight = 0.0 if name == "unweighted" else 1.0
        settings = (f"trainer.coverage_loss_start={start}", f"trainer.coverage_loss_weight={weight}")
        train(*arguments(corpus, tmp_path / name, *few, *settings, model=COPYING))
    final = {name: weights(tmp_path / name) for name in cases}
    assert_equal(final["never"], final["unweighted"])
    attention = {name: tensors["score.v.weight"] for name, tensors in final.items()}
    assert not torch.equal(attention["late"], attention["never"])
    assert not torch.equal(attention["late"], attention["first"])
    losses = {name: {c[0]: c[2] for c in curves(tmp_path / name) if c[1] == "train/loss"} for name in cases}
    assert losses["late"][2] == losses["never"][2]
    assert losses["late"][4] == losses["never"][4], "updates of steps 1 to 3 are the same, step 4 shows step 3's"
    assert losses["late"][6] != losses["never"][6]
    covered = [c[2] for c in curves(tmp_path / "first") if c[1] == "train/coverage_loss"]
    assert len(covered) == 3
    assert min(covered) > 0


def test_an_end_by_patience_is_saved(corpus: Path, tmp_path: Path) -> None:
    """The evaluation that ends a run is in its last checkpoint, whenever checkpoints are due."""
    overrides = ("trainer.patience=2", "trainer.max_steps=null", "optim.horizon_steps=50", "optim.lr=1e-12",
                 "trainer.metric=valid/bleu", "trainer.eval_every=3", "trainer.save_every=1000")  # fmt: skip
    train(*arguments(corpus, tmp_path, *overrides))
    state = json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())
    assert [step for step, _ in state["history"]] == [3, 6, 9]
    assert state["step"] == 9
    before = (tmp_path / "run/results.json").stat().st_mtime_ns
    train(*arguments(corpus, tmp_path, *overrides))
    assert (tmp_path / "run/results.json").stat().st_mtime_ns == before


def test_a_lowered_limit_still_evaluates(corpus: Path, tmp_path: Path) -> None:
    from seq2seq.errors import Interrupted

    schedule = ("optim.warmup_steps=1", "optim.horizon_steps=12")
    with pytest.raises(Interrupted):
        train(*arguments(corpus, tmp_path, "trainer.stop_after_minutes=1e-9", *schedule))
    train(*arguments(corpus, tmp_path, "trainer.max_steps=1", *schedule))
    assert json.loads((tmp_path / "run/results.json").read_text())["best_step"] == 1


def test_weights_that_are_no_numbers_are_never_saved(corpus: Path, tmp_path: Path) -> None:
    from seq2seq.errors import TrainingError

    with pytest.raises(TrainingError, match="not a finite number"):
        train(*arguments(corpus, tmp_path, "optim.lr=1e30", "trainer.save_every=1", "trainer.log_every=1000"))
    for path in (tmp_path / "run/checkpoints").glob("step-*/model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path


def test_a_corpus_with_nothing_left_is_refused(corpus: Path, tmp_path: Path) -> None:
    from seq2seq.errors import UserError

    (tmp_path / "blank").write_text("\n" * 150, encoding="utf-8")
    with pytest.raises(UserError, match="no example is left"):
        train(*arguments(corpus, tmp_path, f"data.train.target={tmp_path}/blank"))


@pytest.mark.parametrize(("byte", "bit"), [(-1, 0x80), (-2, 0x01)], ids=["no token at all", "another token"])
def test_damaged_data_too_large_to_be_read_first_end_the_run_before_a_save(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte: int, bit: int
) -> None:
    from seq2seq.data import prepare
    from seq2seq.errors import TrainingError

    monkeypatch.setattr(prepare, "_READ_AT_ONCE", 0)
    command = arguments(corpus, tmp_path, "trainer.max_steps=4", "overwrite=true")
    train(*command)
    sound = weights(tmp_path)
    ids = max(tmp_path.glob(".cache/stores/*/source.ids"), key=lambda path: path.stat().st_size)
    content = bytearray(ids.read_bytes())
    content[byte] ^= bit
    ids.write_bytes(content)
    with pytest.raises(TrainingError, match=r"changed on the disk.*the same command prepares them anew"):
        train(*command)
    assert not list((tmp_path / "run/checkpoints").glob("*"))
    train(*command)
    assert_equal(weights(tmp_path), sound)
