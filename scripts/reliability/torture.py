#!/usr/bin/env python3
"""Kills training runs at random times, resumes them, and compares them with an undisturbed run.

    python scripts/reliability/torture.py --kills 30 --seed 1 experiment=demo_translation model=transformer_tiny \
        trainer.max_steps=150 trainer.eval_every=30 trainer.save_every=25 trainer.log_every=10

Each trial has its own run folder. The process group gets SIGKILL at a time drawn uniformly from the duration of the
undisturbed run, so that it hits imports, steps, evaluations, saves and the final scoring alike. Every fourth trial
waits for the next save after that time; every tenth starts with an empty cache and is killed while data are prepared.
Then the same command runs to its end, and all its files must equal those of the undisturbed run: weights, optimizer,
curves, TensorBoard events, outputs, scores, and no additional file. Times are not compared.
"""

import argparse
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_contents import contents, differences

NAME = "run"
_LOG_LINE = re.compile(r"(?P<kind>step|valid) (?P<step>\d+)  |(?P<start>training on)|(?P<end>training is complete)")
_RESUMED = re.compile(r"resuming from step (\d+)")
_POLL_SECONDS = 0.0005
_SAVE_SECONDS = 0.03  # saves of small models last about this long; a kill falls somewhere inside


@dataclass(frozen=True)
class Experiment:
    """The command under test, and its undisturbed run.

    Attributes:
        overrides: Configuration overrides given by the user.
        folder: Folder of the caches and the run folders.
        seed: Seed of all kill times.
        seconds: Duration of the undisturbed run with a prepared cache.
        preparing: Seconds until a run with an empty cache has prepared its data.
        reference: Contents of the folder of the undisturbed run.
    """

    overrides: list[str]
    folder: Path
    seed: int
    seconds: float = 0.0
    preparing: float = 0.0
    reference: dict[str, Any] | None = None

    def start(self, trial: str, cache: str) -> subprocess.Popen[bytes]:
        """Starts the command in a new process group; its messages go to a file beside the run folder."""
        root = self.folder / trial
        root.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "seq2seq", "train", "trainer.threads=1", *self.overrides, f"name={NAME}",
            f"output_root={root}", f"cache_root={self.folder / cache}",
        ]  # fmt: skip
        with (root / "messages.txt").open("ab") as messages:
            return subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def finish(self, trial: str, cache: str) -> str | None:
        """Runs the command to its end; returns a description of its failure, or None."""
        code = self.start(trial, cache).wait()
        if code == 0:
            return None
        messages = (self.folder / trial / "messages.txt").read_text(encoding="utf-8", errors="replace")
        last_line = messages.rstrip().rpartition("\n")[2]
        return f"ended with code {code}: {last_line or 'no message'}"


@dataclass(frozen=True)
class Trial:
    """The outcome of a killed and resumed run.

    Attributes:
        number: Number of the trial, from 1.
        kills: (seconds after the start, phase) of each kill; at least one.
        resumed: Steps that the run resumed from.
        differences: Differences from the undisturbed run.
    """

    number: int
    kills: list[tuple[float, str]]
    resumed: list[int]
    differences: list[str]

    def row(self) -> str:
        """Returns a row of the table."""
        times = ", ".join(f"{seconds:.2f} s" for seconds, _ in self.kills)
        phases = ", ".join(phase for _, phase in self.kills)
        resumed = ", ".join(map(str, self.resumed)) or "the start"
        return f"| {self.number} | {times} | {phases} | {resumed} | {'; '.join(self.differences) or 'identical'} |"


def main() -> None:
    """Runs the reference and the trials, and prints a table; exits with code 1 if any run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="total number of kills")
    parser.add_argument("--kills-per-run", type=int, default=1, help="number of kills per run")
    parser.add_argument("--seed", type=int, default=1, help="seed of the kill times")
    parser.add_argument("--jobs", type=int, default=1, help="number of trials to run in parallel")
    parser.add_argument("--folder", help="folder for caches and run folders; default: a temporary folder")
    options, overrides = parser.parse_known_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="torture-")).resolve()
    experiment = run_undisturbed(overrides, folder, options.seed)
    print(f"undisturbed: {experiment.seconds:.1f} s, {experiment.preparing:.1f} s with an empty cache before training")
    print("| trial | killed after | during | resumed from step | result |\n| --- | --- | --- | --- | --- |", flush=True)
    trials = []
    with ThreadPoolExecutor(options.jobs) as pool:
        numbers = range(1, math.ceil(options.kills / options.kills_per_run) + 1)
        for trial in pool.map(lambda number: run_trial(experiment, number, kills=options.kills_per_run), numbers):
            trials.append(trial)
            print(trial.row(), flush=True)
    phases = Counter(phase for trial in trials for _, phase in trial.kills)
    differing = [trial for trial in trials if trial.differences]
    print(f"\nkills: {phases.total()} ({', '.join(f'{count} {phase}' for phase, count in phases.most_common())})")
    print(f"runs: {len(trials)}, identical to the undisturbed one: {len(trials) - len(differing)}")
    if differing:
        sys.exit(
            f"the runs that differ are in {', '.join(str(folder / f'trial-{trial.number}') for trial in differing)}"
        )
    if not options.folder:
        shutil.rmtree(folder)


def run_undisturbed(overrides: list[str], folder: Path, seed: int) -> Experiment:
    """Prepares the cache, runs the command with it, and records its duration and the contents of its run folder."""
    experiment = Experiment(overrides, folder, seed)
    start = time.monotonic()
    process = experiment.start("unprepared", "cache")
    while process.poll() is None and not (folder / "unprepared" / NAME / "config.yaml").exists():
        time.sleep(0.01)  # config.yaml is written once the data are there
    preparing = time.monotonic() - start
    kill(process)
    shutil.rmtree(folder / "reference", ignore_errors=True)
    start = time.monotonic()
    failure = experiment.finish("reference", "cache")
    if failure is not None:
        sys.exit(f"the undisturbed run {failure}")
    seconds = time.monotonic() - start
    reference = contents(folder / "reference" / NAME)
    return Experiment(overrides, folder, seed, seconds, preparing, reference)


def run_trial(experiment: Experiment, number: int, *, kills: int) -> Trial:
    """Kills a run `kills` times, finishes it and compares it; its folder is kept if it differs."""
    rng = random.Random(f"{experiment.seed} {number}")
    name = f"trial-{number}"
    empty_cache, at_save = number % 10 == 0, number % 4 == 0
    cache = f"{name}/cache" if empty_cache else "cache"
    run = experiment.folder / name / NAME
    shutil.rmtree(run.parent, ignore_errors=True)
    hits: list[tuple[float, str]] = []
    while len(hits) < kills:
        process = experiment.start(name, cache)
        seconds = kill_at_random_time(
            process, rng, latest=experiment.preparing if empty_cache else experiment.seconds,
            saves_of=run if at_save else None,
        )  # fmt: skip
        if seconds is not None:
            hits.append((seconds, phase(run)))
        elif hits:
            break  # the rest of the run took less time
        else:
            shutil.rmtree(run.parent)  # it was faster than the undisturbed run: try again with another time
    failure = experiment.finish(name, cache)
    messages = (run.parent / "messages.txt").read_text(encoding="utf-8", errors="replace")
    resumed = [int(step) for step in _RESUMED.findall(messages)]
    found = [failure] if failure else differences(experiment.reference or {}, contents(run))
    if not found:
        shutil.rmtree(run.parent)
    return Trial(number, hits, resumed, found)


def kill_at_random_time(
    process: subprocess.Popen[bytes], rng: random.Random, *, latest: float, saves_of: Path | None
) -> float | None:
    """Kills a process at a random time; returns the seconds after its start, or None if it had ended.

    Args:
        process: A process that has just been started.
        rng: Draws the time.
        latest: Latest time in seconds.
        saves_of: If given, the kill waits for the next save in this run folder.
    """
    start = time.monotonic()
    delay, save_delay = rng.uniform(0, latest), rng.uniform(0, _SAVE_SECONDS)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    while saves_of is not None and process.poll() is None and not is_saving(saves_of):
        time.sleep(_POLL_SECONDS)
    if saves_of is not None:
        time.sleep(save_delay)
    if process.poll() is not None:
        return None
    seconds = time.monotonic() - start
    kill(process)
    return seconds


def kill(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGKILL to the process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    try:
        return any(".tmp-" in entry.name for entry in os.scandir(run / "checkpoints"))
    except FileNotFoundError:
        return False


def phase(run: Path) -> str:
    """Returns what a killed run was doing, derived from its files."""
    if (run / "results.json").exists():
        return "exiting"
    if not (run / "config.yaml").exists():
        return "start-up, preparing"
    if is_saving(run):
        return "a save"
    log = (run / "train.log").read_text(encoding="utf-8", errors="replace")
    events = list(_LOG_LINE.finditer(log))
    if not events or events[-1]["start"]:
        return "building, first steps"
    if events[-1]["end"]:
        return "final scoring"
    every = int(re.findall(r"eval_every: (\d+)", (run / "config.yaml").read_text(encoding="utf-8"))[0])
    evaluating = events[-1]["kind"] == "step" and int(events[-1]["step"]) % every == 0
    return "an evaluation" if evaluating else "steps"


if __name__ == "__main__":
    main()
