#!/usr/bin/env python3
"""Trains a tiny model for very many steps and watches that memory, handles and disk use do not grow.

    python scripts/reliability/soak.py --steps 200000 --folder /tmp/soak

As many saves, evaluations, log lines and passes over the data as a run of days has, in minutes. Every second the
process of `seq2seq train` is asked for its memory, open files and threads, and its run folder for checkpoints and size;
a table shows the medians of each stretch of steps. Exit code 1 if one of these does not hold, from 5,000 steps on:

- memory stays within 5 % of that of the first stretch;
- the numbers of open files and of threads stay what they were;
- there are no more checkpoints than are to be kept, and one that is being written or deleted.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

STRETCHES = 40
SETTLED_STEP = 5000  # caches, buffers and the pages of libraries are there by then
KEPT = 2  # trainer.keep_last + trainer.keep_best
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
    """What one look at the run has shown.

    Attributes:
        step: Of the newest checkpoint.
        resident: Resident memory of the process in MiB.
        memory: The same less pages of files, which come and go as the system likes.
        files: Open file descriptors.
        threads: Threads.
        checkpoints: Folders of checkpoints, unfinished ones included.
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
    """Writes words of up to five letters and the same backwards, as train and valid files."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 2000), ("valid", 16)):
        words = ["".join(random.choice(list("abcdefgh"), random.integers(1, 6))) for _ in range(count)]
        (folder / f"{split}.src").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{word[::-1]}\n" for word in words), encoding="utf-8")


def watch(folder: Path, steps: int, overrides: Sequence[str]) -> list[Sample]:
    """Trains by the real command and looks at it every second until it ends."""
    files = [f"data.{split}.{side}={folder}/{split}.{end}" for split in ("train", "valid")
             for side, end in (("source", "src"), ("target", "tgt"))]  # fmt: skip
    command = [sys.executable, "-m", "seq2seq", "train", *SETTINGS, *files, f"trainer.max_steps={steps}",
               f"output_root={folder}", *overrides]  # fmt: skip
    samples = []
    with (folder / "messages.txt").open("wb") as messages:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages, env=environment) as training:
            process = psutil.Process(training.pid)
            while training.poll() is None:
                try:
                    samples.append(look(process, folder / "soak"))
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    break  # it has just ended
                time.sleep(1)
    if training.returncode != 0:
        sys.exit(f"the run ended with code {training.returncode}; see {folder / 'messages.txt'}")
    return [sample for sample in samples if 0 < sample.step < steps]  # between the first save and the end


def look(process: psutil.Process, run: Path) -> Sample:
    """One sample."""
    checkpoints = run / "checkpoints"
    last = checkpoints / "last"
    step = int(os.readlink(last).removeprefix("step-")) if last.is_symlink() else 0
    folders = [path for path in checkpoints.glob("step-*") if path.is_dir()]
    with process.oneshot():
        used = process.memory_info()
        memory = (used.rss - getattr(used, "shared", 0)) / 2**20  # Linux alone tells which pages are those of files
        return Sample(
            step, used.rss / 2**20, memory, process.num_fds(), process.num_threads(), len(folders), size(run) / 2**20
        )


def size(folder: Path) -> int:
    """Bytes of all files below a folder; a file may vanish while it is asked for its size."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return total


def stretches(samples: Sequence[Sample], steps: int) -> list[list[Sample]]:
    """The samples by stretches of equally many steps; stretches that no sample fell into are left out."""
    length = max(steps // STRETCHES, 1)
    parted: dict[int, list[Sample]] = {}
    for sample in samples:
        parted.setdefault((sample.step - 1) // length, []).append(sample)
    return [parted[number] for number in sorted(parted)]


def row(stretch: Sequence[Sample]) -> str:
    """A row of the table: the last step, and medians."""
    middle = {
        name: statistics.median(getattr(sample, name) for sample in stretch) for name in ("resident", "memory", "disk")
    }
    files, threads = (statistics.median_low(getattr(s, name) for s in stretch) for name in ("files", "threads"))
    most = max(sample.checkpoints for sample in stretch)
    memory = f"{middle['resident']:.1f} | {middle['memory']:.1f}"
    return f"| {stretch[-1].step:,} | {memory} | {files} | {threads} | {most} | {middle['disk']:.2f} |"


def complaints(parted: Sequence[Sequence[Sample]]) -> list[str]:
    """What grew, from the first settled stretch on."""
    settled = [stretch for stretch in parted if stretch[0].step >= SETTLED_STEP]
    if len(settled) < 2:
        return [f"the run was too short: there is nothing to compare after step {SETTLED_STEP:,}"]
    memory = [statistics.median(sample.memory for sample in stretch) for stretch in settled]
    told = []
    if max(memory) > 1.05 * memory[0]:
        told.append(f"memory grew from {memory[0]:.1f} to {max(memory):.1f} MiB")
    for name in ("files", "threads"):
        counts = [statistics.median_low(getattr(sample, name) for sample in stretch) for stretch in settled]
        if max(counts) > counts[0]:
            told.append(f"{name} grew from {counts[0]} to {max(counts)}")
    most = max(sample.checkpoints for stretch in settled for sample in stretch)
    if most > KEPT + 1:
        told.append(f"there were {most} checkpoints at a time, and {KEPT} are to be kept")
    return told


def main() -> None:
    """Trains, prints the table and what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--folder", help="where corpus, cache and run go; default: a temporary folder")
    options, overrides = parser.parse_known_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="soak-")).resolve()
    shutil.rmtree(folder / "soak", ignore_errors=True)
    write_corpus(folder)
    began = time.monotonic()
    samples = watch(folder, options.steps, overrides)
    seconds = time.monotonic() - began
    parted = stretches(samples, options.steps)
    print("| step | resident, MiB | memory, MiB | open files | threads | checkpoints, most | run folder, MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for stretch in parted:
        print(row(stretch))
    print(f"\n{options.steps:,} steps in {seconds / 60:.1f} minutes, {1000 * seconds / options.steps:.1f} ms a step")
    told = complaints(parted)
    if told:
        sys.exit("\n".join(told))
    print("memory, open files, threads and checkpoints stayed what they were")
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
