#!/usr/bin/env python3
"""Trains a tiny model for very many steps and checks that memory, handles and disk use do not grow.

    python scripts/reliability/soak.py --steps 200000 --folder /tmp/soak

In minutes, the run makes as many saves, evaluations, log lines and passes over the data as a run of several days. The
script samples the memory, open files and threads of the `seq2seq train` process and the checkpoints and size of its run
folder every second; a table shows the medians per interval of steps. It exits with code 1 unless, from 5,000 steps on:

- memory stays within 5 % of that of the first interval;
- the numbers of open files and of threads do not grow;
- there are no more checkpoints than configured, plus one that is being written or deleted.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import psutil

NUM_INTERVALS = 40
WARMUP_STEPS = 5000  # by then caches, buffers and library pages are allocated
MAX_CHECKPOINTS = 2  # trainer.keep_last + trainer.keep_best
SETTINGS = (
    "model=transformer_tiny", "model.d_model=16", "model.d_ff=16", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=1", "tokenizer=char", "tokenizer.joint=true", "tokenizer.byte_fallback=false",
    "metrics.names=[bleu]", "metrics.bootstrap=0", "search=greedy", "search.max_length=8", "optim.warmup_steps=100",
    "trainer.device=cpu", "trainer.threads=1", "trainer.precision=fp32", "trainer.batch_tokens=32",
    "trainer.log_every=100", "trainer.eval_every=500", "trainer.save_every=500", "trainer.eval_examples=8",
    "trainer.samples=2", "trainer.attention_images=1", "name=soak",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A sample of the resources of the run.

    Attributes:
        step: Step of the latest checkpoint.
        resident: Resident memory of the process in MiB.
        memory: Resident memory without file pages, which the system evicts at will, in MiB.
        files: Number of open file descriptors.
        threads: Number of threads.
        checkpoints: Number of checkpoint folders, including unfinished ones.
        disk: Size of the run folder in MiB.
    """

    step: int
    resident: float
    memory: float
    files: int
    threads: int
    checkpoints: int
    disk: float


def write_corpus(folder: Path) -> None:
    """Writes train and valid files of words of up to five letters and their reversals."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 2000), ("valid", 16)):
        words = ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 6))) for _ in range(count)]
        (folder / f"{split}.src").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{word[::-1]}\n" for word in words), encoding="utf-8")


def watch(folder: Path, steps: int, overrides: Sequence[str]) -> list[Sample]:
    """Trains with the real command and samples its resources every second until it ends."""
    files = [f"data.{split}.{side}={folder}/{split}.{end}" for split in ("train", "valid")
             for side, end in (("source", "src"), ("target", "tgt"))]  # fmt: skip
    command = [sys.executable, "-m", "seq2seq", "train", *SETTINGS, *files, f"trainer.max_steps={steps}",
               f"output_root={folder}", *overrides]  # fmt: skip
    samples = []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        (folder / "messages.txt").open("wb") as messages,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages, env=environment) as training,
    ):
        process = psutil.Process(training.pid)
        while training.poll() is None:
            try:
                with suppress(FileNotFoundError):  # a file was deleted meanwhile: the next sample will do
                    samples.append(take_sample(process, folder / "soak"))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                break  # it has just ended
            time.sleep(1)
    if training.returncode != 0:
        sys.exit(f"the run ended with code {training.returncode}; see {folder / 'messages.txt'}")
    return [sample for sample in samples if 0 < sample.step < steps]  # between the first save and the end


def take_sample(process: psutil.Process, run: Path) -> Sample:
    """Samples the resources of the process and its run folder."""
    checkpoints = run / "checkpoints"
    last = checkpoints / "last"
    step = int(os.readlink(last).removeprefix("step-")) if last.is_symlink() else 0
    folders = [path for path in checkpoints.glob("step-*") if path.is_dir()]
    disk = sum(path.lstat().st_size for path in run.rglob("*") if not path.is_dir()) / 2**20
    with process.oneshot():
        used = process.memory_info()
        memory = (used.rss - getattr(used, "shared", 0)) / 2**20  # only Linux reports file pages
        return Sample(step, used.rss / 2**20, memory, process.num_fds(), process.num_threads(), len(folders), disk)


def group_by_interval(samples: Sequence[Sample], steps: int) -> list[list[Sample]]:
    """Groups samples, ordered by step, into intervals of equally many steps; omits intervals without samples."""
    length = max(steps // NUM_INTERVALS, 1)
    return [list(interval) for _, interval in groupby(samples, lambda sample: (sample.step - 1) // length)]


def row(interval: Sequence[Sample]) -> str:
    """Returns a row of the table: the last step, and medians."""
    resident, memory, disk = (
        statistics.median(getattr(s, name) for s in interval) for name in ("resident", "memory", "disk")
    )
    files, threads = (statistics.median_low(getattr(s, name) for s in interval) for name in ("files", "threads"))
    most = max(sample.checkpoints for sample in interval)
    return f"| {interval[-1].step:,} | {resident:.1f} | {memory:.1f} | {files} | {threads} | {most} | {disk:.2f} |"


def find_growth(intervals: Sequence[Sequence[Sample]]) -> list[str]:
    """Describes what grew after the warm-up steps."""
    settled = [interval for interval in intervals if interval[0].step >= WARMUP_STEPS]
    if len(settled) < 2:
        return [f"the run is too short: there is nothing to compare after step {WARMUP_STEPS:,}"]
    memory = [statistics.median(sample.memory for sample in interval) for interval in settled]
    growth = []
    if max(memory) > 1.05 * memory[0]:
        growth.append(f"memory grew from {memory[0]:.1f} to {max(memory):.1f} MiB")
    for name in ("files", "threads"):
        counts = [statistics.median_low(getattr(sample, name) for sample in interval) for interval in settled]
        if max(counts) > counts[0]:
            growth.append(f"{name} grew from {counts[0]} to {max(counts)}")
    most = max(sample.checkpoints for interval in settled for sample in interval)
    if most > MAX_CHECKPOINTS + 1:
        growth.append(f"there were {most} checkpoints at a time, but {MAX_CHECKPOINTS} are configured")
    return growth


def main() -> None:
    """Trains, prints the table and what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--folder", help="folder for corpus, cache and run; default: a temporary folder")
    options, overrides = parser.parse_known_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="soak-")).resolve()
    shutil.rmtree(folder / "soak", ignore_errors=True)
    write_corpus(folder)
    start = time.monotonic()
    samples = watch(folder, options.steps, overrides)
    seconds = time.monotonic() - start
    intervals = group_by_interval(samples, options.steps)
    print("| step | resident, MiB | memory, MiB | open files | threads | checkpoints, most | run folder, MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for interval in intervals:
        print(row(interval))
    print(f"\n{options.steps:,} steps in {seconds / 60:.1f} minutes, {1000 * seconds / options.steps:.1f} ms per step")
    growth = find_growth(intervals)
    if growth:
        sys.exit("\n".join(growth))
    print("memory, open files, threads and checkpoints did not grow")
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
