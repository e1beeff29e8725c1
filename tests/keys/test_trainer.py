"""Every key of `trainer`: what a run logs, keeps, shows and refuses, against what the key's description says."""

import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sacrebleu.metrics import CHRF

from seq2seq.config import saved
from seq2seq.errors import Interrupted, TrainingError, UserError
from seq2seq.pipeline import load as api
from seq2seq.runs import checkpoint
from seq2seq.runs.folder import RunFolder
from seq2seq.system.config import Precision
from seq2seq.system.device import Runtime
from seq2seq.tokenizers.base import BOS_ID, EOS_ID
from seq2seq.tokenizers.pair import load_tokenizers

BUDGET, SMOOTHING = 256, 0.3
FAST = ("trainer.eval_examples=0", "search=greedy", "search.max_length=2")
# No dropout; and an epsilon that keeps gradients of zero (the keys' biases) from becoming whole steps.
TWIN = (*FAST, "model.dropout=0", "optim.eps=0.001", "optim.warmup_steps=1", "trainer.max_steps=2")
RUNS = {
    # With so large a rate the model gets no better: an early evaluation is the best.
    "average of last": (*FAST, "trainer.max_steps=11", "trainer.max_epochs=2", "trainer.eval_every=2",
                        "trainer.save_every=2", "trainer.keep_best=2", "trainer.average=last",
                        "trainer.average_checkpoints=3", "trainer.metric=valid/accuracy", "trainer.metric_mode=max",
                        "optim.lr=0.3"),
    "average of best": (*FAST, "trainer.max_steps=12", "trainer.eval_every=2", "trainer.save_every=2",
                        "trainer.keep_last=2", "trainer.average=best", "trainer.average_checkpoints=3",
                        "trainer.metric=valid/accuracy", "optim.lr=0.03"),
    "epoch": (*FAST, "trainer.max_epochs=1", "trainer.max_steps=100", "trainer.log_every=4", "trainer.eval_every=5",
              "trainer.save_every=1", "trainer.keep_last=100", f"trainer.batch_tokens={BUDGET}"),
    "shown": ("trainer.max_steps=8", "trainer.eval_every=8", "trainer.eval_examples=5", "trainer.samples=3",
              "trainer.attention_images=1", "metrics.names=[chrf]", "search.min_length=6", "search.max_length=12"),
}  # fmt: skip

Trained = Callable[[str], Any]


@pytest.fixture(scope="module")
def plain(train_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int]:
    """A run, and the bytes that were kept for its backward passes."""
    with kept_bytes() as kept:
        run = train_run(tmp_path_factory.mktemp("plain"), *TWIN)
    return run, sum(kept)


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """The sizes of what autograd keeps of forward passes; what is computed anew is not among it."""
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def linked(run: Any, name: str) -> str:
    """The checkpoint that a link stands for."""
    return Path(os.readlink(run.folder / "checkpoints" / name)).name


def ranked(curve: dict[int, float], *, largest_first: bool) -> list[int]:
    """Steps, best first, the earlier of equals."""
    return sorted(curve, key=lambda step: (-curve[step] if largest_first else curve[step], step))


def weights(run: Any, name: str) -> dict[str, Any]:
    """Those of a checkpoint, each under all its names."""
    return checkpoint.load_checkpoint(run.folder / "checkpoints" / name).tensors["model"]


def assert_mean(run: Any, steps: list[int]) -> None:
    """The average of a run is that of the checkpoints of these steps."""
    parts = [weights(run, f"step-{step:08d}") for step in steps]
    for name, found in weights(run, "average").items():
        mean = torch.stack([part[name].double() for part in parts]).mean(0).float()
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-7, msg=name)


def ids(run: Any, corpus: Path, side: str) -> list[list[int]]:
    """The training texts of a side as the run's tokenizer has them, ended."""
    tokenizer = getattr(load_tokenizers(run.folder / "tokenizer"), {"src": "source", "tgt": "target"}[side])
    return [[*tokenizer.encode(line), EOS_ID] for line in lines(corpus, "train", side)]


def lines(corpus: Path, split: str, side: str) -> list[str]:
    return (corpus / f"{split}.{side}").read_text(encoding="utf-8").splitlines()


def difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


# -- how long ---------------------------------------------------------------------------------------------------------


def test_max_steps(trained: Trained) -> None:
    run = trained("average of last")  # two epochs are more
    assert run.state()["step"] == run.results["train"]["steps"] == 11
    assert "training is complete: trainer.max_steps=11 reached" in run.log


def test_max_epochs(trained: Trained, corpus: Path) -> None:
    run = trained("epoch")
    assert run.state()["target_tokens"] == sum(map(len, ids(run, corpus, "tgt")))
    assert run.results["train"]["epochs"] == 1
    assert run.curve("train/epoch")[run.state()["step"]] == 1


def test_minutes_of_a_process_and_of_the_run(train_run: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"trainer\.stop_after_minutes=1e-09 after step 1") as stop:
        train_run(tmp_path, *FAST, "trainer.stop_after_minutes=1e-9")
    assert stop.value.exit_code == 75
    seconds = train_run.at(tmp_path).state()["seconds"]
    run = train_run(tmp_path, *FAST, f"trainer.max_minutes={seconds / 120}")
    assert run.results["train"]["steps"] == 1, "the minutes before count"
    assert run.results["train"]["seconds"] == pytest.approx(seconds, abs=0.01)


def test_patience(train_run: Any, tmp_path: Path) -> None:
    run = train_run(tmp_path, *FAST, "trainer.patience=3", "trainer.metric=valid/accuracy", "optim.lr=1e-12",
                    "trainer.max_steps=20", "trainer.eval_every=1", "trainer.save_every=100")  # fmt: skip
    accuracies = run.curve("valid/accuracy")
    assert len(set(accuracies.values())) == 1
    assert sorted(accuracies) == [1, 2, 3, 4], "the best, and three without gain"


# -- what an update is of ---------------------------------------------------------------------------------------------


def test_batch_tokens(trained: Trained) -> None:
    run = trained("epoch")
    totals = [0, *(run.state(f"step-{step:08d}")["target_tokens"] for step in run.checkpoints())]
    of_steps = [after - before for before, after in pairwise(totals)]
    assert max(of_steps) <= BUDGET
    assert sum(tokens > 0.7 * BUDGET for tokens in of_steps) > len(of_steps) / 2, "the budget is used"


def test_label_smoothing(train_run: Any, tmp_path: Path, corpus: Path) -> None:
    """One update of all examples that moves nothing: its loss is that of the saved weights."""
    run = train_run(tmp_path, *FAST, "model.dropout=0", "optim.lr=1e-12", "optim.warmup_steps=1", "trainer.max_steps=1",
                    "trainer.batch_tokens=100000", f"trainer.label_smoothing={SMOOTHING}")  # fmt: skip
    config = saved.load(run.folder / "config.yaml")
    runtime = Runtime(torch.device("cpu"), Precision.fp32)
    model, _ = api.load_model(
        RunFolder(run.folder), config, load_tokenizers(run.folder / "tokenizer"), checkpoint="last", runtime=runtime
    )
    loss = nll = 0.0
    for source, target in zip(ids(run, corpus, "src"), ids(run, corpus, "tgt"), strict=True):
        src, tgt_in, labels = torch.tensor([source]), torch.tensor([[BOS_ID, *target[:-1]]]), torch.tensor(target)
        with torch.no_grad():
            scores = model.decode(tgt_in, model.encode(src, src != 0)).features[0] @ model.output.weight.t()
        loss += float(F.cross_entropy(scores, labels, label_smoothing=SMOOTHING, reduction="sum"))
        nll += float(F.cross_entropy(scores, labels, reduction="sum"))
    count = run.state()["target_tokens"]
    assert run.curve("train/loss")[1] == pytest.approx(loss / count, rel=1e-5)
    assert run.curve("train/ppl")[1] == pytest.approx(math.exp(nll / count), rel=1e-5)
    assert abs(loss - nll) / count > 0.01


def test_coverage_loss_weight_and_start(train_run: Any, tmp_path: Path) -> None:
    """One update without the coverage loss, and one with it."""
    settings = (*FAST, "trainer.coverage_loss_start=1", "trainer.max_steps=2", "trainer.save_every=1",
                "trainer.keep_last=2", "optim.warmup_steps=1")  # fmt: skip
    full, half = (
        train_run(tmp_path / weight, *settings, f"trainer.coverage_loss_weight={weight}", model="copying")
        for weight in ("1.0", "0.5")
    )
    assert difference(full.weights("step-00000001"), half.weights("step-00000001")) == 0
    assert difference(full.weights(), half.weights()) > 1e-5
    assert full.curve("train/coverage_loss")[2] > 0


def test_init_from(trained: Trained, train_run: Any, tmp_path: Path) -> None:
    """The other run's best weights and its tokenizer, whose section is recorded; what contradicts it is refused."""
    base = trained("average of last")
    start = (*FAST, f"trainer.init_from={base.folder}")
    with pytest.raises(UserError, match=r"tokenizer\.byte_fallback=False cannot take effect: .*init_tokenizer=own"):
        train_run(tmp_path, *start, "tokenizer.byte_fallback=false")
    run = train_run(tmp_path, *start,
                    "trainer.max_steps=1", "optim.warmup_steps=1", "optim.lr=1e-12")  # fmt: skip
    assert difference(run.weights(), base.weights("best")) < 1e-9
    assert difference(run.weights(), base.weights("last")) > 1e-3
    written = [(folder / "tokenizer" / "tokenizer.json").read_text() for folder in (run.folder, base.folder)]
    assert written[0] == written[1]


# -- where and how numbers are computed -------------------------------------------------------------------------------


def test_device(plain: tuple[Any, int], train_run: Any, tmp_path: Path) -> None:
    assert plain[0].results["environment"]["device"].startswith("cpu (")
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(UserError, match=rf"trainer\.device={absent}: no such device on this machine"):
        train_run(tmp_path, *TWIN, f"trainer.device={absent}")


@pytest.mark.gpu
def test_device_of_a_gpu(train_run: Any, tmp_path: Path) -> None:
    run = train_run(tmp_path, *TWIN, "trainer.device=cuda")
    assert run.results["environment"]["device"] == torch.cuda.get_device_name(0)
    assert "training on cuda:0 in fp32" in run.log


def test_threads_and_the_precision_of_the_machine(train_run: Any, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        run = train_run(tmp_path, *TWIN, f"trainer.threads={threads + 1}", "trainer.precision=auto")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert re.fullmatch(rf"cpu \(.*, {threads + 1} threads\)", run.results["environment"]["device"])
    processor = Path("/proc/cpuinfo")
    native = processor.exists() and "avx512_bf16" in processor.read_text(encoding="utf-8")
    assert run.results["environment"]["precision"] == ("bf16" if native else "fp32")


def test_precision(plain: tuple[Any, int], train_run: Any, tmp_path: Path) -> None:
    """Products of numbers with 8 and 11 bits: near those of 24 bits, the coarser ones less so."""
    exact, errors = plain[0].weights(), {}
    for precision in ("bf16", "fp16"):
        run = train_run(tmp_path / precision, *TWIN, f"trainer.precision={precision}")
        assert f"training on cpu in {precision}" in run.log
        assert run.results["environment"]["precision"] == precision
        assert run.curve("train/loss")[2] == pytest.approx(plain[0].curve("train/loss")[2], rel=0.01)
        assert bool(run.curve("train/loss_scale")) == (precision == "fp16")
        errors[precision] = sum(float((tensor - exact[name]).abs().sum()) for name, tensor in run.weights().items())
    assert errors["bf16"] > 2 * errors["fp16"] > 0


def test_checkpoint_activations(plain: tuple[Any, int], train_run: Any, tmp_path: Path) -> None:
    """Far less is kept for the backward pass, and the weights are the same."""
    with kept_bytes() as kept:
        run = train_run(tmp_path, *TWIN, "trainer.checkpoint_activations=true")
    assert sum(kept) < plain[1] / 3
    assert difference(run.weights(), plain[0].weights()) == 0


def test_compile(plain: tuple[Any, int], train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objective is traced by torch.compile, whose kernels would take minutes, and the weights stay the same."""
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    graphs, compiled = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled(self, backend=graphs, **how))
    reset()
    try:
        run = train_run(tmp_path, *TWIN, "trainer.compile=true")
    finally:
        reset()
    assert graphs.frame_count > 0
    assert graphs.op_count > 20
    assert difference(run.weights(), plain[0].weights()) < 1e-5


# -- what is logged and shown -----------------------------------------------------------------------------------------


def test_log_every(trained: Trained) -> None:
    run = trained("epoch")
    last = run.state()["step"]
    assert sorted(run.curve("train/loss")) == sorted({*range(4, last, 4), last})


def test_eval_every(trained: Trained) -> None:
    assert sorted(trained("average of best").curve("valid/loss")) == [2, 4, 6, 8, 10, 12]
    assert sorted(trained("epoch").curve("valid/loss")) == [5, trained("epoch").state()["step"]]


def greedy_outputs(run: Any, sources: list[str]) -> list[str]:
    return api.load(run.folder, overrides=["search.beam_size=1", "trainer.device=cpu"]).generate(sources)


def shown(run: Any) -> Any:
    """What TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run.folder / "tensorboard")).Reload()


def test_eval_examples(trained: Trained, corpus: Path) -> None:
    """The metric is that of so many outputs, by sacrebleu."""
    run = trained("shown")
    outputs, targets = greedy_outputs(run, lines(corpus, "valid", "src")), lines(corpus, "valid", "tgt")
    scores = {count: CHRF(word_order=2).corpus_score(outputs[:count], [targets[:count]]).score for count in (5, 8)}
    assert run.curve("valid/chrf")[8] == pytest.approx(scores[5], abs=1e-9)
    assert scores[5] != pytest.approx(scores[8], abs=0.01)


def test_samples(trained: Trained, corpus: Path) -> None:
    run = trained("shown")
    events = shown(run)
    (tag,) = (tag for tag in events.Tags()["tensors"] if tag.startswith("samples"))
    table = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    sources, targets = (lines(corpus, "valid", side)[:3] for side in ("src", "tgt"))
    columns = zip(sources, targets, greedy_outputs(run, sources), strict=True)
    assert [line.strip("| ").split(" | ") for line in table.splitlines()[2:]] == [list(row) for row in columns]


def test_attention_images(trained: Trained, plain: tuple[Any, int]) -> None:
    assert shown(trained("shown")).Tags()["images"] == ["attention/0"]
    assert shown(plain[0]).Tags()["images"] == []


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_metric_and_its_mode_choose_the_best(trained: Trained) -> None:
    run = trained("average of last")
    accuracies, losses = run.curve("valid/accuracy"), run.curve("valid/loss")
    best = ranked(accuracies, largest_first=True)[0]
    assert best not in (ranked(accuracies, largest_first=False)[0], ranked(losses, largest_first=False)[0])
    assert linked(run, "best") == f"step-{best:08d}"
    assert run.results["best_step"] == best
    assert run.results["objective"] == {"metric": "valid/accuracy", "mode": "max", "value": accuracies[best]}


def test_save_every(trained: Trained) -> None:
    run = trained("epoch")
    assert run.checkpoints() == list(range(1, run.state()["step"] + 1))


def test_keep_best(trained: Trained) -> None:
    """Besides the three that are averaged."""
    run = trained("average of last")
    best = ranked(run.curve("valid/accuracy"), largest_first=True)[:2]
    assert not {8, 10, 11} & set(best)
    assert run.checkpoints() == sorted({*best, 8, 10, 11})


def test_keep_last(trained: Trained) -> None:
    """Besides the three that are averaged."""
    run = trained("average of best")
    best = ranked(run.curve("valid/accuracy"), largest_first=True)[:3]
    assert not {10, 12} & set(best)
    assert run.checkpoints() == sorted({*best, 10, 12})


def test_average_of_the_last(trained: Trained, plain: tuple[Any, int]) -> None:
    run = trained("average of last")
    assert_mean(run, [8, 10, 11])
    assert run.weights("average").keys() == run.weights("last").keys(), "tied weights are stored once"
    assert not (plain[0].folder / "checkpoints" / "average").exists()


def test_average_of_the_best(trained: Trained) -> None:
    run = trained("average of best")
    accuracies = run.curve("valid/accuracy")
    best = ranked(accuracies, largest_first=True)[:3]
    assert_mean(run, best)
    better = run.state("average")["value"] > accuracies[best[0]]
    assert linked(run, "best") == ("average" if better else f"step-{best[0]:08d}")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_max_skipped_steps(train_run: Any, tmp_path: Path) -> None:
    """The first update spoils the weights; the next three cannot be made."""
    with pytest.raises(TrainingError, match="3 updates in a row were skipped, in fp32, up to step 4 "):
        train_run(tmp_path, *FAST, "optim.lr=1e30", "optim.warmup_steps=0", "trainer.max_skipped_steps=3",
                  "trainer.log_every=1", "trainer.eval_every=100", "trainer.max_steps=100")  # fmt: skip


def test_timeout_minutes(train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two ranks, whose other one never comes; in a thread, for it might wait for half an hour."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    errors: list[Exception] = []

    def wait() -> None:
        try:
            train_run(tmp_path, *TWIN, "trainer.timeout_minutes=0.02")
        except Exception as error:
            errors.append(error)

    rank = Thread(target=wait, daemon=True)
    rank.start()
    rank.join(60)
    assert re.search("(?i)timed out after [12] seconds", str(errors[0]))
