#!/usr/bin/env python3
"""Compares the speed of this package with others that do the same work on this machine.

    python scripts/benchmarks/benchmark.py train                                    # on generated data
    python scripts/benchmarks/benchmark.py train experiment=multi30k_transformer
    python scripts/benchmarks/benchmark.py train model=gru_small model.input_feeding=false model.attention=general
    python scripts/benchmarks/benchmark.py generate --run outputs/demo_translation --input data/demo_translation/test.en
    python scripts/benchmarks/benchmark.py data --pairs 200000
    python scripts/benchmarks/benchmark.py startup

Each contender runs in its own process, and only one works at a time: in each round, every contender takes one turn.
Results are medians over the rounds; ratios are medians of the per-round ratios. `docs/speed.md` explains the columns.
"""

import argparse
import json
import pkgutil
from pathlib import Path
from typing import Any

LOOPS = ["ours-bf16", "ours-fp32", "bare-bf16", "bare-fp32", "hf-bf16", "hf-fp32"]
SEARCHES = ["ours-fp32", "ours-bf16", "hf-fp32", "hf-bf16", "ct2-fp32", "ct2-bf16", "ct2-int8"]
_PROFILE = "folder for a trace and the top operators of one turn of each contender"


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    main = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = main.add_subparsers(dest="command", required=True)
    command = _add_command(
        commands, "train", "benchmark_training:compare", "Compare training steps with those of a bare PyTorch loop.",
        rounds=5,
    )  # fmt: skip
    command.add_argument("--contenders", nargs="+", default=LOOPS[:4],
                      choices=LOOPS, metavar="NAME", help=", ".join(LOOPS))  # fmt: skip
    command.add_argument("--steps", type=int, default=8, help="updates per turn")
    command.add_argument("--batch-tokens", type=int, default=4400, help="trainer.batch_tokens, including padding")
    command.add_argument("--pairs", type=int, default=29_000, help="sentence pairs in the generated corpus")
    command.add_argument("--profile", type=Path, help=_PROFILE)
    command = _add_command(
        commands, "generate", "benchmark_decoding:compare",
        "Compare greedy and beam search with Hugging Face and CTranslate2 on the weights of a run.", rounds=3,
    )  # fmt: skip
    command.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        required=True,
        help="a run folder; the other contenders need a plain Transformer",
    )
    command.add_argument("--input", type=Path, required=True, help="file of sources, one per line; may be .gz")
    command.add_argument(
        "--contenders",
        nargs="+",
        default=["ours-fp32", "ours-bf16", "hf-fp32", "ct2-fp32", "ct2-int8"],
        choices=SEARCHES,
        metavar="NAME",
        help=", ".join(SEARCHES),
    )
    command.add_argument("--beams", nargs="+", type=int, default=[1, 5], help="beam sizes; 1 is greedy search")
    command.add_argument("--sentences", type=int, default=1000, help="use only the first N lines of the input")
    command.add_argument("--max-length", type=int, default=50, help="maximum tokens per output")
    command.add_argument("--profile", type=Path, help=_PROFILE)
    command = _add_command(
        commands, "data", "benchmark_commands:compare_prepare",
        "Compare `seq2seq prepare` with SentencePiece's own batch encoder on the same lines.", rounds=3,
    )  # fmt: skip
    command.add_argument("--pairs", type=int, default=200_000, help="sentence pairs in the generated corpus")
    command = _add_command(
        commands, "startup", "benchmark_commands:compare_startup",
        "Measure the time from launching `seq2seq train` on a prepared corpus to its first step.", rounds=5,
    )  # fmt: skip
    command.add_argument("--pairs", type=int, default=29_000, help="sentence pairs in the generated corpus")
    return main


def _add_command(commands: Any, name: str, run: str, description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Adds a command that calls `run`, a "module:function" that is imported only then, and the common options."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=description, description=description)
    command.set_defaults(run=run)
    command.add_argument("--rounds", type=int, default=rounds, help="measured turns per contender")
    command.add_argument("--warmup", type=int, default=1, help="warm-up turns per contender")
    command.add_argument("--threads", type=int, default=2, help="threads per process")
    command.add_argument(
        "--folder", type=Path, default=Path("outputs/benchmark"), help="folder for generated data, caches and runs"
    )
    command.add_argument("--json", type=Path, help="file to write all results to")
    command.add_argument(
        "overrides", nargs="*", help="KEY=VALUE, as for seq2seq train; if they name data, --pairs is ignored"
    )
    return command


def main() -> None:
    """Measures and prints a Markdown table."""
    options = parser().parse_args()
    results = pkgutil.resolve_name(options.run)(options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
