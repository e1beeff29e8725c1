"""`benchmark.py data` and `startup`: run the real commands and time them from launch."""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark_overrides import check_overrides
from benchmark_turns import Benchmark, Contender, Timings, table, take_turns

FIXED_KEYS = {"trainer.threads": "give --threads"}
SEQ2SEQ = [sys.executable, "-m", "seq2seq"]


class Command:
    """A command in its own process.

    Args:
        command: Program and arguments.
        until: Prefix of a line on standard error that ends the turn, whereupon the process is killed; None waits for
            the process to end.
        clear: Folders to delete before each turn.
    """

    def __init__(self, command: list[str], until: str | None = None, clear: tuple[Path, ...] = ()):
        self._command, self._until, self._clear = command, until, clear

    def turn(self) -> None:
        """Runs the command."""
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

    def stats(self) -> dict[str, Any]:
        """Returns the peak resident memory of its largest child process, in MiB."""
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return {"peak_mb": peak / (2**20 if sys.platform == "darwin" else 2**10)}


class SentencePieceEncoder(Benchmark):
    """Encodes both sides with SentencePiece's fastest interface: one batch, on all cores, to arrays.

    Args:
        sides: For each side, the text file and the SentencePiece model.
    """

    def __init__(self, sides: list[tuple[Path, Path]]):
        from sentencepiece import SentencePieceProcessor

        self._sides = [(file, SentencePieceProcessor(model_file=str(model))) for file, model in sides]

    def turn(self) -> int:
        """Encodes all lines; returns the number of tokens."""
        tokens = 0
        for file, processor in self._sides:
            lines = file.read_text(encoding="utf-8").split("\n")[:-1]
            tokens += sum(map(len, processor.encode(lines, num_threads=-1, return_type="numpy")))
        return tokens


def compare_prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Compares `prepare`, with its tokenizer already trained, with SentencePiece's encoder on the same lines."""
    from benchmark_corpus import compose_config, corpus_overrides
    from benchmark_training import prepare_data

    check_overrides(options.overrides, FIXED_KEYS)
    overrides = corpus_overrides(options.folder, options.pairs, options.overrides, tokenizer="unigram")
    config = compose_config(overrides)
    if config.tokenizer.kind.value not in ("unigram", "bpe"):
        sys.exit(f"tokenizer.kind={config.tokenizer.kind.value} is not a SentencePiece tokenizer: use unigram or bpe")
    data = prepare_data(config)
    folder = options.folder / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    sides = []
    stores = [data.train, data.valid, *data.test.values()]
    for side in ("source", "target"):
        texts = (getattr(store, f"{side}_text")(i) for store in stores for i in range(len(store)))
        (folder / side).write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
        sides.append((folder / side, folder / f"{'joint' if data.tokenizers.joint else side}.model"))
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
    prepare, cached, sentencepiece = measured.values()
    speeds = {
        "from launch to end": sentencepiece.median() / prepare.median(),
        "without startup": sentencepiece.median() / (prepare.median() - cached.median()),
    }
    pairs = sum(map(len, stores))
    print(f"\n{pairs:,} pairs, {sentencepiece.results[0]:,} tokens; prepare relative to SentencePiece alone:", end=" ")
    print(", ".join(f"{speed:.2f} × as fast {part}" for part, speed in speeds.items()))
    return {"pairs": pairs, "prepare_times_sentencepiece": speeds, **_results(measured)}


def compare_startup(options: argparse.Namespace) -> dict[str, Any]:
    """Measures `train` on a prepared corpus from launch to its first step, and how much of that is imports."""
    from benchmark_corpus import compose_config, corpus_overrides
    from benchmark_training import prepare_data

    check_overrides(options.overrides, FIXED_KEYS)
    overrides = corpus_overrides(options.folder, options.pairs, options.overrides)
    prepare_data(compose_config(overrides))
    run = [f"output_root={options.folder.resolve()}", "name=startup", "overwrite=true", "trainer.log_every=1"]
    contenders = [
        Contender("train to its first step", Command, ([*SEQ2SEQ, "train", *overrides, *run], "step 1 ")),
        Contender("--help", Command, ([*SEQ2SEQ, "--help"],)),
        Contender("import torch", Command, ([sys.executable, "-c", "import torch"],)),
    ]
    measured = take_turns(contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads)
    print(_table(measured))
    return _results(measured)


def _results(measured: Mapping[str, Timings]) -> dict[str, Any]:
    return {
        name: {
            "median_seconds": timings.median(),
            "median_cpu_seconds": statistics.median(timings.cpu_seconds),
            "peak_mb": timings.stats.get("peak_mb", timings.peak_mb),
            "seconds": timings.seconds,
        }
        for name, timings in measured.items()
    }


def _table(measured: Mapping[str, Timings]) -> str:
    return table(
        ["work", "seconds", "CPU seconds", "peak MiB", "spread %"],
        [
            [
                name,
                *(f"{row[key]:.2f}" for key in ("median_seconds", "median_cpu_seconds")),
                f"{row['peak_mb']:,.0f}",
                f"{100 * measured[name].spread():.1f}",
            ]
            for name, row in _results(measured).items()
        ],
    )
