#!/usr/bin/env python3
"""Measures this package against others that do the same work on this machine, in turns.

    python scripts/benchmarks/benchmark.py train                                    # on generated data
    python scripts/benchmarks/benchmark.py train experiment=multi30k_transformer
    python scripts/benchmarks/benchmark.py train model=gru_small model.input_feeding=false model.attention=general
    python scripts/benchmarks/benchmark.py generate --run outputs/demo_translation --input data/demo_translation/test.en
    python scripts/benchmarks/benchmark.py data --pairs 200000
    python scripts/benchmarks/benchmark.py startup

Each contender runs in a process of its own, and never two at a time: one works for a turn, then the next, round by
round. Figures are medians over the rounds; ratios are medians of each round's ratio. `docs/speed.md` says what the
columns mean.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOPS = ["ours-bf16", "ours-fp32", "bare-bf16", "bare-fp32", "hf-bf16", "hf-fp32"]
SEARCHES = ["ours-fp32", "ours-bf16", "hf-fp32", "hf-bf16", "ct2-fp32", "ct2-bf16", "ct2-int8"]
_PROFILE = "a folder for a trace and the top operators of a turn of each"


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Training steps beside those of a bare loop."""
    import benchmark_training

    return benchmark_training.compare(options)


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Greedy and beam search with a run's weights beside those of Hugging Face and CTranslate2."""
    import benchmark_decoding

    return benchmark_decoding.compare(options)


def data(options: argparse.Namespace) -> dict[str, Any]:
    """`seq2seq prepare` beside SentencePiece's own batch encoder over the same lines."""
    import benchmark_commands

    return benchmark_commands.compare_preparing(options)


def startup(options: argparse.Namespace) -> dict[str, Any]:
    """`seq2seq train` on a prepared corpus, from its launch to its first step."""
    import benchmark_commands

    return benchmark_commands.compare_starts(options)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = main.add_subparsers(dest="verb", required=True)
    verb = _add_verb(verbs, "train", train, rounds=5)
    verb.add_argument("--contenders", nargs="+", default=LOOPS[:4],
                      choices=LOOPS, metavar="NAME", help=", ".join(LOOPS))  # fmt: skip
    verb.add_argument("--steps", type=int, default=8, help="updates of a turn")
    verb.add_argument("--batch-tokens", type=int, default=4400, help="trainer.batch_tokens, padding counted")
    verb.add_argument("--pairs", type=int, default=29_000, help="of the generated corpus")
    verb.add_argument("--profile", type=Path, help=_PROFILE)
    verb = _add_verb(verbs, "generate", generate, rounds=3)
    verb.add_argument(
        "--run", dest="run_folder", type=Path, required=True, help="a run folder; others need a plain Transformer"
    )
    verb.add_argument("--input", type=Path, required=True, help="a file of sources, a line each, or .gz")
    verb.add_argument("--contenders", nargs="+", default=["ours-fp32", "ours-bf16", "hf-fp32", "ct2-fp32", "ct2-int8"],
                      choices=SEARCHES, metavar="NAME", help=", ".join(SEARCHES))  # fmt: skip
    verb.add_argument("--beams", nargs="+", type=int, default=[1, 5], help="beam sizes; 1 is greedy search")
    verb.add_argument("--sentences", type=int, default=1000, help="of the input, from its beginning")
    verb.add_argument("--max-length", type=int, default=50, help="most tokens of an output")
    verb.add_argument("--profile", type=Path, help=_PROFILE)
    verb = _add_verb(verbs, "data", data, rounds=3)
    verb.add_argument("--pairs", type=int, default=200_000, help="of the generated corpus")
    verb = _add_verb(verbs, "startup", startup, rounds=5)
    verb.add_argument("--pairs", type=int, default=29_000, help="of the generated corpus")
    return main


def _add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], dict[str, Any]], *, rounds: int
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
    verb.set_defaults(run=run)
    verb.add_argument("--rounds", type=int, default=rounds, help="turns of each that count")
    verb.add_argument("--warmup", type=int, default=1, help="turns of each before these")
    verb.add_argument("--threads", type=int, default=2, help="of each process")
    verb.add_argument("--folder", type=Path, default=Path("outputs/benchmark"), help="generated data, caches, runs")
    verb.add_argument("--json", type=Path, help="a file for all figures")
    verb.add_argument(
        "overrides", nargs="*", help="KEY=VALUE, as for seq2seq train; --pairs is ignored where they name data"
    )
    return verb


def main() -> None:
    """Measures and prints a Markdown table."""
    options = parser().parse_args()
    figures = options.run(options)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
