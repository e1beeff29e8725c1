#!/usr/bin/env python3
"""Measures `prepare` and the start of `train` on a large generated corpus.

    python scripts/benchmarks/measure_scale.py --pairs 2000000 --folder /tmp/scale

Writes pairs of random sentences whose words follow Zipf's law, runs the commands as a user would, and prints the wall
time, CPU time and peak resident memory of each: `prepare` (nothing cached; the tokenizer cached; everything cached),
the first 100 steps of `train`, and the time from launching `train` to its first step once the store exists.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from benchmark_corpus import SYLLABLES


def write_corpus(folder: Path, pairs: int, *, seed: int = 1) -> None:
    """Writes train and valid files: sentences of 4 to 24 words; targets are respelled and in reversed order."""
    random = np.random.default_rng(seed)
    words = np.array(
        sorted({"".join(random.choice(SYLLABLES, random.integers(1, 5))) for _ in range(60_000)}), dtype=object
    )
    random.shuffle(words)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("valid", 1000), ("train", pairs)):
        with (folder / f"{split}.src").open("w") as source, (folder / f"{split}.tgt").open("w") as target:
            for start in range(0, count, 10_000):
                for size in random.integers(4, 25, min(10_000, count - start)):
                    sentence = words[(random.zipf(1.2, size) - 1) % len(words)]
                    source.write(" ".join(sentence) + "\n")
                    target.write(" ".join(word + "t" for word in sentence[::-1]) + "\n")


def measure(*arguments: str) -> tuple[float, float, float]:
    """Runs a command to its end; returns its seconds, CPU seconds and peak resident memory in MiB."""
    began = time.time()
    process = subprocess.Popen([sys.executable, "-m", "seq2seq", *arguments], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"seq2seq {' '.join(arguments)} ended with status {status}; run it to see why")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return time.time() - began, usage.ru_utime + usage.ru_stime, peak


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the corpus, the cache and the run")
    parser.add_argument("overrides", nargs="*", help="overrides for the commands")
    options = parser.parse_args()
    if not (options.folder / "train.tgt").exists():
        write_corpus(options.folder, options.pairs)
    common = [
        f"data.root={options.folder}",
        "data.train.source=train.src", "data.train.target=train.tgt",
        "data.valid.source=valid.src", "data.valid.target=valid.tgt",
        f"output_root={options.folder}/outputs", "name=scale", "metrics.names=[bleu]", "metrics.bootstrap=0",
        *options.overrides,
    ]  # fmt: skip
    size = sum((options.folder / f"train.{side}").stat().st_size for side in ("src", "tgt")) / 2**20
    print(f"{options.pairs:,} pairs, {size:,.0f} MiB of text\n")
    print("| command | seconds | CPU seconds | peak MiB |\n| --- | --- | --- | --- |")
    row = "| {} | {:.1f} | {:.1f} | {:,.0f} |"
    print(row.format("`prepare`, nothing cached", *measure("prepare", *common)))
    print(row.format("`prepare`, tokenizer cached", *measure("prepare", *common, "data.max_source_length=255")))
    print(row.format("`prepare`, everything cached", *measure("prepare", *common)), flush=True)
    began = time.time()
    limits = ["trainer.max_steps=100", "optim.warmup_steps=10", "trainer.log_every=1", "trainer.eval_examples=0"]
    trained = measure("train", *common, *limits, "overwrite=true")
    with (options.folder / "outputs/scale/metrics.jsonl").open(encoding="utf-8") as metrics:
        first = json.loads(metrics.readline())
    print(row.format("first 100 steps of `train`, including evaluation", *trained))
    print(f"| `train`, from launch to the end of the first step, store cached | {first['wall_time'] - began:.1f} | | |")


if __name__ == "__main__":
    main()
