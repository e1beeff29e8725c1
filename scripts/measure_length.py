#!/usr/bin/env python3
"""Measures what a source token costs in training as sources get longer.

    python scripts/measure_length.py --folder /tmp/length
    python scripts/measure_length.py --folder /tmp/length --models transformer_base --lengths 4096 \
        --overrides trainer.device=cuda

Writes a corpus of random words for each length, with targets of 64 tokens, and trains a few steps on it by the command
that a user would type. Printed for each model, setting and length: microseconds a source token (the median step's time
over its source tokens) and the peak memory of training. A cost that is linear in the length stays flat from row to row.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

TARGET_TOKENS = 64
WORDS = 8000
SETTINGS = {
    "plain": ["model.copy=false"],
    "copying": ["model.copy=true"],
    "copying, activations anew": ["model.copy=true", "trainer.checkpoint_activations=true"],
}


def write_corpus(folder: Path, length: int, count: int) -> None:
    """Writes `count` examples, each a source of `length` tokens with the end of sentence, as train and valid files."""
    random = np.random.default_rng(length)
    words = np.array([f"w{number}" for number in range(WORDS)], dtype=object)
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in (("train", count), ("valid", 2)):
        for side, tokens in (("src", length), ("tgt", TARGET_TOKENS)):
            lines = (" ".join(random.choice(words, tokens - 1)) for _ in range(examples))
            (folder / f"{split}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def measure(folder: Path, model: str, length: int, *, settings: list[str], options: argparse.Namespace) -> str:
    """Trains in a process of its own; microseconds a source token and peak MiB, as cells of a table."""
    command = [
        sys.executable, "-m", "seq2seq", "train", f"data.root={folder}", "data.train.source=train.src",
        "data.train.target=train.tgt", "data.valid.source=valid.src", "data.valid.target=valid.tgt",
        f"data.max_source_length={length}", f"model={model}", "tokenizer=word", "tokenizer.joint=true",
        f"tokenizer.vocab_size={WORDS}", f"output_root={folder}/outputs", "name=length", "overwrite=true",
        f"trainer.batch_tokens={options.batch_tokens}", f"trainer.max_steps={options.steps}", "trainer.log_every=1",
        "trainer.eval_examples=0", "optim.warmup_steps=1", *settings, *options.overrides,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"ended with code {done.returncode}: {last} |"
    lines = (folder / "outputs/length/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    rates = [entry["value"] for entry in entries if entry["tag"] == "perf/target_tokens_per_sec"]
    peak = max(entry["value"] for entry in entries if entry["tag"] == "system/peak_memory_mb")
    # All examples are of one length, so source tokens are target tokens times the ratio of the lengths.
    seconds = 1 / (statistics.median(rates[1:]) * length / TARGET_TOKENS)
    return f"{1e6 * seconds:,.1f} | {peak:,.0f}"


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where corpora, caches and runs go")
    parser.add_argument("--models", nargs="+", default=["transformer_small", "gru_small"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 4096])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--overrides", nargs="+", default=[], help="more keys for the command")
    options = parser.parse_args()
    print(f"batches of {options.batch_tokens:,} source tokens, targets of {TARGET_TOKENS}\n")
    print("| model | setting | source tokens | µs a source token | peak MiB |\n| --- | --- | --- | --- | --- |")
    for length in options.lengths:
        corpus = options.folder / str(length)
        write_corpus(corpus, length, options.steps * -(-options.batch_tokens // length))
    for model in options.models:
        for setting in options.settings:
            for length in options.lengths:
                corpus = options.folder / str(length)
                cells = measure(corpus, model, length, settings=SETTINGS[setting], options=options)
                print(f"| {model} | {setting} | {length:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
