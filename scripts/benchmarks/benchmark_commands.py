"""`benchmark.py data` and `startup`: the commands as a user types them, from their launch on."""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark_overrides import refuse
from benchmark_turns import Contender, Measured, table, take_turns

SETTLED = {"trainer.threads": "give --threads"}
SEQ2SEQ = [sys.executable, "-m", "seq2seq"]


class Command:
    """A command in a process of its own.

    Args:
        command: Program and arguments.
        until: The beginning of a line of standard error at which the turn is over and the process killed; None
            waits for its end.
        clear: Folders that are deleted beforehand.
    """

    def __init__(self, command: list[str], until: str | None = None, clear: tuple[Path, ...] = ()):
        self._command, self._until, self._clear = command, until, clear

    def turn(self) -> None:
        """Runs it."""
        for folder in self._clear:
            shutil.rmtree(folder, ignore_errors=True)
        with subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if self._until is not None and line.startswith(self._until):
                    process.kill()
                    return
        if process.returncode != 0 or self._until is not None:
            sys.exit(f"{' '.join(self._command)} ended with code {process.returncode}:\n{''.join(lines[-20:])}")

    def facts(self) -> dict[str, Any]:
        """Largest resident memory of one process that it has started, in MiB."""
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return {"peak_mb": peak / (2**20 if sys.platform == "darwin" else 2**10)}


class SentencePieceEncoder:
    """Reads both sides and encodes them as fast as SentencePiece itself does: in one batch, on all cores, to arrays.

    Args:
        sides: File of lines and model of each.
    """

    def __init__(self, sides: list[tuple[Path, Path]]):
        from sentencepiece import SentencePieceProcessor

        self._sides = [(file, SentencePieceProcessor(model_file=str(model))) for file, model in sides]

    def turn(self) -> int:
        """Returns the number of tokens."""
        tokens = 0
        for file, processor in self._sides:
            lines = file.read_text(encoding="utf-8").split("\n")[:-1]
            tokens += sum(map(len, processor.encode(lines, num_threads=-1, return_type="numpy")))
        return tokens

    def facts(self) -> dict[str, Any]:
        """Nothing beyond what is measured."""
        return {}


def compare_preparing(options: argparse.Namespace) -> dict[str, Any]:
    """Measures `prepare`, its tokenizer trained already, beside SentencePiece's encoder over the same lines."""
    from benchmark_corpus import composed, corpus_overrides
    from benchmark_training import prepared_data

    refuse(options.overrides, SETTLED)
    overrides = corpus_overrides(options.folder, options.pairs, options.overrides, tokenizer="unigram")
    config = composed(overrides)
    if config.tokenizer.kind.value not in ("unigram", "bpe"):
        sys.exit(f"tokenizer.kind={config.tokenizer.kind.value} is none of SentencePiece's: take unigram or bpe")
    data = prepared_data(config)
    folder = options.folder / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    sides = []
    names = ("joint", "joint") if data.tokenizers.joint else ("source", "target")
    stores = [data.train, data.valid, *data.test.values()]
    for side, name in zip(("source", "target"), names, strict=True):
        texts = (getattr(store, f"{side}_text")(number) for store in stores for number in range(len(store)))
        (folder / side).write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
        sides.append((folder / side, folder / f"{name}.model"))
    data.tokenizers.save(folder)
    stores_folder = Path(config.cache_root) / "stores"
    command = [*SEQ2SEQ, "prepare", *overrides]
    contenders = [
        Contender("prepare", Command, (command, None, (stores_folder,))),
        Contender("prepare, all cached", Command, (command,)),
        Contender("SentencePiece", SentencePieceEncoder, (sides,)),
    ]
    measured = take_turns(contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads)
    print(_table(measured))
    prepare, cached, alone = measured.values()
    shares = {
        "from launch to end": alone.median() / prepare.median(),
        "without the start": alone.median() / (prepare.median() - cached.median()),
    }
    pairs = sum(map(len, stores))
    print(f"\n{pairs:,} pairs, {alone.results[0]:,} tokens; prepare against SentencePiece alone:", end=" ")
    print(", ".join(f"{share:.2f} × as fast {part}" for part, share in shares.items()))
    return {"pairs": pairs, "prepare_times_sentencepiece": shares, **_figures(measured)}


def compare_starts(options: argparse.Namespace) -> dict[str, Any]:
    """Measures `train` from its launch to its first step on a prepared corpus, and what part of that is imports."""
    from benchmark_corpus import composed, corpus_overrides
    from benchmark_training import prepared_data

    refuse(options.overrides, SETTLED)
    overrides = corpus_overrides(options.folder, options.pairs, options.overrides)
    config = composed(overrides)
    prepared_data(config)
    run = [f"output_root={options.folder.resolve()}", "name=startup", "overwrite=true", "trainer.log_every=1"]
    commands = {
        "train to its first step": ([*SEQ2SEQ, "train", *overrides, *run], "step 1 "),
        "--help": ([*SEQ2SEQ, "--help"], None),
        "import torch": ([sys.executable, "-c", "import torch"], None),
    }
    contenders = [Contender(name, Command, arguments) for name, arguments in commands.items()]
    measured = take_turns(contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads)
    print(_table(measured))
    return _figures(measured)


def _figures(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        name: {
            "median_seconds": work.median(),
            "median_cpu_seconds": statistics.median(work.cpu_seconds),
            "peak_mb": work.facts.get("peak_mb", work.peak_mb),
            "seconds": work.seconds,
        }
        for name, work in measured.items()
    }


def _table(measured: Mapping[str, Measured]) -> str:
    return table(
        ["work", "seconds", "CPU seconds", "peak MiB", "spread %"],
        [
            [
                name,
                *(f"{row[key]:.2f}" for key in ("median_seconds", "median_cpu_seconds")),
                f"{row['peak_mb']:,.0f}",
                f"{100 * measured[name].spread():.1f}",
            ]
            for name, row in _figures(measured).items()
        ],
    )
