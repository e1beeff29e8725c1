"""What tests share: tiny configurations, a corpus that tiny models learn from, runs on it, and counted operators."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

_TRAINING = (
    "tokenizer=char", "optim.warmup_steps=4", "optim.lr=0.002", "metrics.names=[bleu]", "metrics.bootstrap=0",
    "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32", "trainer.attention_images=0",
    "trainer.eval_examples=4", "trainer.log_every=2", "trainer.max_steps=12", "trainer.eval_every=5",
    "trainer.save_every=4", "trainer.batch_tokens=256", "search.max_length=32",
)  # fmt: skip
_TRANSFORMER = (
    "model=transformer_tiny", "model.d_model=32", "model.d_ff=64", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=1", *_TRAINING,
)  # fmt: skip
_GRU = (
    "model=gru_tiny", "model.d_model=32", "model.embedding_size=16", "model.encoder_size=16", "model.attention_size=16",
    *_TRAINING,
)  # fmt: skip
_COPYING = (*_GRU, "tokenizer.joint=true", "model.copy=true", "model.coverage=true")


@dataclass(frozen=True)
class Run:
    """What a run left in its folder, as its user would read it."""

    folder: Path

    def weights(self, checkpoint: str = "last", file: str = "model") -> dict[str, Any]:
        """Tensors by name."""
        from safetensors.torch import load_file

        return load_file(self.folder / "checkpoints" / checkpoint / f"{file}.safetensors")

    def state(self, checkpoint: str = "last") -> dict[str, Any]:
        """The loop's state in a checkpoint."""
        return dict(json.loads((self.folder / "checkpoints" / checkpoint / "state.json").read_text(encoding="utf-8")))

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that were kept."""
        return sorted(int(path.name.split("-")[1]) for path in self.folder.glob("checkpoints/step-*"))

    def curves(self) -> list[tuple[int, str, float]]:
        """Step, tag and value of all that does not depend on the machine."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [(r["step"], r["tag"], r["value"]) for r in records if not r["tag"].startswith(("perf/", "system/"))]

    def curve(self, tag: str) -> dict[int, float]:
        """Values of one tag by step."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return {record["step"]: record["value"] for record in records if record["tag"] == tag}

    @property
    def results(self) -> dict[str, Any]:
        """The final scores."""
        return dict(json.loads((self.folder / "results.json").read_text(encoding="utf-8")))

    @property
    def log(self) -> str:
        """The text of train.log."""
        return (self.folder / "train.log").read_text(encoding="utf-8")

    def outputs(self, test_set: str = "back") -> list[str]:
        """The best checkpoint's outputs for a test set."""
        text = (self.folder / "generations" / f"{test_set}.txt").read_text(encoding="utf-8")
        return text.removesuffix("\n").split("\n")


@dataclass(frozen=True)
class TrainRun:
    """Trains tiny models on `corpus` as the command does, in this process; a run is OUT/run.

    Attributes:
        models: Overrides by kind of model.
        files: Overrides that name the corpus.
    """

    models: dict[str, tuple[str, ...]]
    files: list[str]

    def __call__(self, out: Path, *overrides: str, model: str = "transformer") -> Run:
        from seq2seq.cli.train import run

        run(self.arguments(out, *overrides, model=model))
        return self.at(out)

    def arguments(self, out: Path, *overrides: str, model: str = "transformer") -> list[str]:
        """What `seq2seq train` takes for the same in a process of its own."""
        return [*self.models[model], *self.files, f"output_root={out}", "name=run", *overrides]

    def at(self, out: Path) -> Run:
        """The run there, which may have been interrupted."""
        return Run(out / "run")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> dict[str, tuple[str, ...]]:
    """Overrides by kind of model: each makes a run of under a second on `corpus`."""
    return {"transformer": _TRANSFORMER, "gru": _GRU, "copying": _COPYING}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random words in train.src, valid.src and test.src, and the same backwards in *.tgt."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(5)
    for split, count in (("train", 150), ("valid", 8), ("test", 4)):
        words = [["".join(random.choice(list("abcde"), 3)) for _ in range(random.integers(1, 6))] for _ in range(count)]
        lines = [" ".join(line) for line in words]
        (folder / f"{split}.src").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{line[::-1]}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def files(corpus: Path) -> list[str]:
    """`corpus` as overrides; its test set is called back."""
    sides = (("source", "src"), ("target", "tgt"))
    overrides = [f"data.{split}.{side}={corpus}/{split}.{end}" for split in ("train", "valid") for side, end in sides]
    return [*overrides, *(f"+data.test.back.{side}={corpus}/test.{end}" for side, end in sides)]


@pytest.fixture(scope="session")
def train_run(files: list[str], tiny: dict[str, tuple[str, ...]]) -> TrainRun:
    return TrainRun(tiny, files)


@pytest.fixture
def operators() -> Any:
    """A context that counts ATen operators.

    Attributes: `counts` by name, forward and backward; `views`, how many of them only look at memory that is there;
    `largest`, the bytes of the largest memory that one of them took.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def memory(tree: Any) -> dict[int, int]:
        storages = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    class Operators(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.counts: Counter[str] = Counter()
            self.views = 0
            self.largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            self.counts[func.overloadpacket.__name__] += 1
            self.views += func.is_view
            taken = memory(result).items() - memory((args, kwargs)).items()
            self.largest = max([self.largest, *(size for _, size in taken)])
            return result

    return Operators


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with multi30k/ and aeslc/, named by SEQ2SEQ_DATA."""
    folder = os.environ.get("SEQ2SEQ_DATA")
    if not folder or not (Path(folder) / "multi30k").is_dir():
        pytest.skip("SEQ2SEQ_DATA does not name a folder with multi30k/ and aeslc/")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        absent = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(absent)
