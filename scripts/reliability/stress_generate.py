#!/usr/bin/env python3
"""Streams hostile text through `seq2seq generate` in a pipe, and checks that each line gets its own output.

    python scripts/reliability/stress_generate.py --lines 100000
    python scripts/reliability/stress_generate.py --lines 3000 --run outputs/demo_translation search.beam_size=5

The lines are drawn from a seed: characters of every plane, controls, all that other programs take for a line end, the
names of special tokens, blank lines, and one in a thousand of 100 kB. Without a run, an untrained model is made in a
temporary folder by `seq2seq train` with one step. Checked are that there are as many outputs as lines, that blank lines
gave empty outputs, and that a sample of lines, searched alone, gives what it gave in the stream. Printed are lines,
seconds, and the largest resident memory of the process over the first tenth of the lines and over all of them.
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
ONE_IN = 1000  # lines that are long
QUICK = ["search.beam_size=2", "search.max_length=8", "trainer.device=cpu", "trainer.threads=1"]
TOLERANCE = 1e-4  # nats; what other padding does to the sums behind a log-probability is a tenth of it
LINE_ENDS_OF_OTHERS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
MARKUP = ["<pad>", "<unk>", "<s>", "</s>", "▁", "⁇", "<0x0A>", "\ufeff", "\ufffd", "🏳️‍🌈", "e\u0301\u0302\u0303"]
WORDS = ["the", "old", "man", "reads", "a", "book", "in", "garden", "while", "it", "rains"]


def line(seed: int, number: int) -> str:
    """The text of a line, whatever other lines were made before."""
    draw = random.Random(f"{seed} {number}")
    if number == 0:
        return "a plain first line: what it starts with tells the kind of the file"
    if number % ONE_IN == ONE_IN // 2:
        unit = draw.choice(["x", "word ", "é", "\u0301", _any_character(draw) + " ", draw.choice(MARKUP)])
        return unit * (LONG_LINE_BYTES // len(unit.encode()))
    if draw.randrange(10) == 0:
        return draw.choice(["", " ", "\t \u3000"])
    text = "".join(draw.choice(_PARTS)(draw) for _ in range(draw.randrange(1, 60)))
    return text.rstrip("\r")  # at the very end it belongs to the line end


def _any_character(draw: random.Random) -> str:
    """A code point of any plane, each plane as likely as the others; no surrogate and no line feed."""
    code = draw.randrange(17) << 16 | draw.randrange(1 << 16)
    return "?" if code == 0x0A or 0xD800 <= code < 0xE000 else chr(code)


_PARTS: list[Callable[[random.Random], str]] = [
    _any_character,
    lambda draw: chr(draw.choice([*range(10), *range(11, 32), 127, *range(128, 160)])),
    lambda draw: draw.choice(LINE_ENDS_OF_OTHERS),
    lambda draw: draw.choice(MARKUP),
    lambda draw: draw.choice(WORDS) + " ",
]


@dataclass
class Streamed:
    """What came back.

    Attributes:
        lines: outputs read.
        blank_not_empty: numbers of blank lines that got an output.
        kept: by number, the outputs of the lines that are searched alone afterwards.
        seconds: from the command to its end.
        early_mb: largest resident memory over the first tenth of the lines, MiB.
        peak_mb: over all of them.
    """

    lines: int = 0
    blank_not_empty: list[int] = field(default_factory=list)
    kept: dict[int, dict[str, object]] = field(default_factory=dict)
    seconds: float = 0.0
    early_mb: float = 0.0
    peak_mb: float = 0.0


def stream(run: Path, count: int, *, seed: int, keep: set[int], overrides: list[str]) -> Streamed:
    """Sends the lines through the command and reads what it writes."""
    command = [sys.executable, "-m", "seq2seq", "generate", f"run='{run}'", "format=jsonl", *overrides]
    began = time.time()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    threading.Thread(target=_feed, args=(process.stdin, count, seed), daemon=True).start()
    found, memory = Streamed(), psutil.Process(process.pid)
    for number, raw in enumerate(process.stdout):
        record = json.loads(raw)
        if not line(seed, number).strip() and record["text"]:
            found.blank_not_empty.append(number)
        if number in keep:
            found.kept[number] = record["nbest"][0]
        found.lines += 1
        if number % 20 == 0:
            found.peak_mb = max(found.peak_mb, memory.memory_info().rss / 2**20)
        if number <= count // 10:
            found.early_mb = found.peak_mb
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with code {process.returncode}")
    found.seconds = time.time() - began
    return found


def _feed(pipe: IO[bytes], count: int, seed: int) -> None:
    with pipe:
        for number in range(count):
            pipe.write(line(seed, number).encode() + b"\n")


def check(run: Path, found: Streamed, *, count: int, seed: int, overrides: list[str]) -> list[str]:
    """What is wrong with the outputs; the lines that were kept are searched one at a time."""
    from seq2seq.pipeline.load import load

    wrong = [f"{count} lines in, {found.lines} out"] if found.lines != count else []
    wrong += [f"line {number + 1} is blank, its output is not" for number in found.blank_not_empty]
    alone = load(run, overrides=overrides)
    for number, record in found.kept.items():
        (output,) = alone.generate_nbest([line(seed, number)])[0][:1]
        log_prob = record["log_prob"]
        assert isinstance(log_prob, float)
        if not math.isclose(output.log_prob, log_prob, abs_tol=TOLERANCE):
            wrong.append(f"line {number + 1} alone gives {output.text!r}, in the stream {record['text']!r}")
    return wrong


def untrained(folder: Path) -> Path:
    """A run of one step on the bundled corpus."""
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
        sys.exit(f"the untrained model could not be made: {done.stderr}")
    return folder / "untrained"


def main() -> None:
    """Streams, checks and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", type=int, default=100, help="lines that are searched alone as well")
    parser.add_argument("--run", type=Path, help="run folder; default an untrained model")
    parser.add_argument("overrides", nargs="*", default=[], help="keys for generate, after those that make it quick")
    options = parser.parse_args()
    overrides = [*QUICK, *options.overrides]
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or untrained(Path(folder))
        keep = set(random.Random(options.seed).sample(range(options.lines), min(options.alone, options.lines)))
        found = stream(run, options.lines, seed=options.seed, keep=keep, overrides=overrides)
        wrong = check(run, found, count=options.lines, seed=options.seed, overrides=overrides)
    print(
        f"{found.lines:,} lines in {found.seconds:,.0f} s; resident memory at most {found.early_mb:,.0f} MiB over the "
        f"first tenth, {found.peak_mb:,.0f} MiB over all; {len(found.kept)} lines searched alone as well"
    )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
