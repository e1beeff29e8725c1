#!/usr/bin/env python3
"""Streams malformed text through `seq2seq generate` in a pipe, and checks that each line gets its own output.

    python scripts/reliability/stress_generate.py --lines 100000
    python scripts/reliability/stress_generate.py --lines 3000 --run outputs/demo_translation search.beam_size=5

The lines are drawn from a seed: characters of every plane, control characters, all line ends of other programs, the
names of special tokens, blank lines, and one line in a thousand of 100 kB. Without --run, `seq2seq train` makes an
untrained model with one step in a temporary folder. The script checks that there are as many outputs as lines, that
blank lines have empty outputs, and that a sample of lines, decoded alone, has the same outputs as in the stream. It
prints lines, seconds, and the peak resident memory over the first tenth of the lines and over all of them.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

LONG_LINE_BYTES = 100_000
LONG_LINE_EVERY = 1000  # lines
QUICK = ["search.beam_size=2", "search.max_length=8", "trainer.device=cpu", "trainer.threads=1"]
TOLERANCE = 1e-4  # nats; the effect of other padding on a log-probability is a tenth of it
OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
MARKUP = ["<pad>", "<unk>", "<s>", "</s>", "▁", "⁇", "<0x0A>", "\ufeff", "\ufffd", "🏳️‍🌈", "e\u0301\u0302\u0303"]
WORDS = ["the", "old", "man", "reads", "a", "book", "in", "garden", "while", "it", "rains"]


def line(seed: int, index: int) -> str:
    """Returns the text of a line, a pure function of seed and index."""
    rng = random.Random(f"{seed} {index}")
    if index == 0:
        return "a plain first line: what it starts with tells the kind of the file"
    if index % LONG_LINE_EVERY == LONG_LINE_EVERY // 2:
        unit = rng.choice(["x", "word ", "é", "\u0301", _any_character(rng) + " ", rng.choice(MARKUP)])
        return unit * (LONG_LINE_BYTES // len(unit.encode()))
    if rng.randrange(10) == 0:
        return rng.choice(["", " ", "\t \u3000"])
    text = "".join(rng.choice(_PARTS)(rng) for _ in range(rng.randrange(1, 60)))
    return text.rstrip("\r")  # at the end of a line it would be part of the line end


def _any_character(rng: random.Random) -> str:
    """Draws a code point of any plane, each plane with equal probability; no surrogate and no line feed."""
    code = rng.randrange(17) << 16 | rng.randrange(1 << 16)
    return "?" if code == 0x0A or 0xD800 <= code < 0xE000 else chr(code)


_PARTS: list[Callable[[random.Random], str]] = [
    _any_character,
    lambda rng: chr(rng.choice([*range(10), *range(11, 32), 127, *range(128, 160)])),
    lambda rng: rng.choice(OTHER_LINE_ENDS),
    lambda rng: rng.choice(MARKUP),
    lambda rng: rng.choice(WORDS) + " ",
]


@dataclass
class StreamResult:
    """The outputs of a stream.

    Attributes:
        lines: number of outputs.
        blank_not_empty: indices of blank lines whose output is not empty.
        kept: by index, the outputs of the lines that are decoded alone afterwards.
        seconds: duration of the command.
        early_mb: peak resident memory over the first tenth of the lines, MiB.
        peak_mb: peak resident memory over all lines, MiB.
    """

    lines: int = 0
    blank_not_empty: list[int] = field(default_factory=list)
    kept: dict[int, dict[str, object]] = field(default_factory=dict)
    seconds: float = 0.0
    early_mb: float = 0.0
    peak_mb: float = 0.0


def stream(run: Path, count: int, *, seed: int, keep: set[int], overrides: list[str]) -> StreamResult:
    """Sends the lines through the command and reads its outputs."""
    command = [sys.executable, "-m", "seq2seq", "generate", f"run='{run}'", "format=jsonl", *overrides]
    start = time.time()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    threading.Thread(target=_feed, args=(process.stdin, count, seed), daemon=True).start()
    result, memory = StreamResult(), psutil.Process(process.pid)
    for index, raw in enumerate(process.stdout):
        record = json.loads(raw)
        if not line(seed, index).strip() and record["text"]:
            result.blank_not_empty.append(index)
        if index in keep:
            result.kept[index] = record["nbest"][0]
        result.lines += 1
        if index % 20 == 0:
            result.peak_mb = max(result.peak_mb, memory.memory_info().rss / 2**20)
        if index <= count // 10:
            result.early_mb = result.peak_mb
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with code {process.returncode}")
    result.seconds = time.time() - start
    return result


def _feed(pipe: IO[bytes], count: int, seed: int) -> None:
    with pipe:
        for index in range(count):
            pipe.write(line(seed, index).encode() + b"\n")


def check(run: Path, result: StreamResult, *, count: int, seed: int, overrides: list[str]) -> list[str]:
    """Describes what is wrong with the outputs; decodes the kept lines one at a time."""
    from seq2seq.pipeline.load import load

    wrong = [f"{count} lines in, {result.lines} out"] if result.lines != count else []
    wrong += [f"line {index + 1} is blank, its output is not" for index in result.blank_not_empty]
    model = load(run, overrides=overrides)
    for index, record in result.kept.items():
        (output,) = model.generate_nbest([line(seed, index)])[0][:1]
        log_prob = record["log_prob"]
        assert isinstance(log_prob, float)
        if not math.isclose(output.log_prob, log_prob, abs_tol=TOLERANCE):
            wrong.append(f"line {index + 1} alone gives {output.text!r}, in the stream {record['text']!r}")
    return wrong


def train_untrained(folder: Path) -> Path:
    """Trains a run of one step on the bundled corpus."""
    done = subprocess.run(
        [
            sys.executable, "-m", "seq2seq", "train", "experiment=demo_translation", "model=transformer_tiny",
            f"output_root='{folder}'", "name=untrained", "trainer.max_steps=1", "optim.warmup_steps=1",
            "trainer.eval_examples=0", "trainer.metric=valid/loss", "metrics.names=[chrf]", "metrics.bootstrap=0",
            *QUICK,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"training the untrained model failed: {done.stderr}")
    return folder / "untrained"


def main() -> None:
    """Streams the lines, checks the outputs and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", type=int, default=100, help="number of lines to decode alone as well")
    parser.add_argument("--run", type=Path, help="run folder; default: an untrained model")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="overrides for generate, after those that make it fast"
    )
    options = parser.parse_args()
    overrides = [*QUICK, *options.overrides]
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or train_untrained(Path(folder))
        keep = set(random.Random(options.seed).sample(range(options.lines), min(options.alone, options.lines)))
        result = stream(run, options.lines, seed=options.seed, keep=keep, overrides=overrides)
        wrong = check(run, result, count=options.lines, seed=options.seed, overrides=overrides)
    print(
        f"{result.lines:,} lines in {result.seconds:,.0f} s; peak resident memory {result.early_mb:,.0f} MiB over the "
        f"first tenth, {result.peak_mb:,.0f} MiB over all; {len(result.kept)} lines decoded alone as well"
    )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
