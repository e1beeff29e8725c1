"""What tests of keys share: data prepared as the command does it, and a run whose outputs are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config.compose import compose
from seq2seq.config.parse import parse
from seq2seq.data.prepare import PreparedData
from seq2seq.pipeline.prepare import prepare_data

SAID = "The dogs were barking, loudly. Two cats slept!"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for a module, so that a key that the cache forgets gives what another value of it made."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prepare(cache: Path) -> Callable[..., PreparedData]:
    """Prepares data for overrides as the command does."""

    def prepared(*overrides: str) -> PreparedData:
        fixed = ["name=keys", f"cache_root={cache}", "model.tie_embeddings=decoder"]
        return prepare_data(parse(compose("prepare", [*fixed, *overrides])))

    return prepared


@pytest.fixture(scope="session")
def saying(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, tuple[str, ...]]) -> Path:
    """The folder of a run that answers SAID to whatever it is asked.

    Its validation set has SAID as a further reference only, and BLEU is its only metric.
    """
    from seq2seq.cli.train import run

    out = tmp_path_factory.mktemp("saying")
    words = ["dogs", "barked", "loudly", "the", "cat", "sleeps"]
    sources = [" ".join(words[i * step % 6] for i in range(1, 2 + step % 5)) for step in range(60)]
    (out / "train.src").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    (out / "train.tgt").write_text(f"{SAID}\n" * len(sources), encoding="utf-8")
    records = [{"source": line, "target": "Birds sing their songs all day.", "more": SAID} for line in sources[:4]]
    (out / "valid.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    run([
        *tiny["gru"], "tokenizer=word", "tokenizer.word_tokenizer=whitespace", "model.tie_embeddings=decoder",
        "optim.lr=0.02", "trainer.max_steps=20", "trainer.eval_every=20", "trainer.save_every=20",
        "trainer.batch_tokens=400", f"data.train.source={out}/train.src", f"data.train.target={out}/train.tgt",
        f"data.valid.path={out}/valid.jsonl", "data.valid.references_field=more", f"output_root={out}", "name=run",
    ])  # fmt: skip
    return out / "run"


@pytest.fixture(scope="session")
def evaluate(saying: Path) -> Callable[..., dict[str, Any]]:
    """Evaluates `saying` with overrides as the command does; returns the results that it wrote."""

    def evaluated(*overrides: str) -> dict[str, Any]:
        from seq2seq.cli import commands

        commands.run("evaluate", [f"run={saying}", *overrides])
        return dict(json.loads((saying / "evaluations" / "best" / "results.json").read_text(encoding="utf-8")))

    return evaluated


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, train_run: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """The runs that a module lists in RUNS, by their names, each trained when it is first asked for."""
    runs: dict[str, Any] = {}

    def run(name: str) -> Any:
        if name not in runs:
            runs[name] = train_run(tmp_path_factory.mktemp("run"), *request.module.RUNS[name])
        return runs[name]

    return run
