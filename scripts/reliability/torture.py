#!/usr/bin/env python3
"""Kills training runs at random moments, starts them again, and compares them with one that nobody disturbed.

    python scripts/reliability/torture.py --kills 30 --seed 1 experiment=demo_translation model=transformer_tiny \
        trainer.max_steps=150 trainer.eval_every=30 trainer.save_every=25 trainer.log_every=10

Every trial has a run folder of its own. The process group gets SIGKILL at a moment drawn uniformly from the duration of
the undisturbed run, so that it hits imports, steps, evaluations, saves and the final scoring alike. Every fourth trial
waits for the next save after that moment instead; every tenth has an empty cache and dies while data are prepared. Then
the same command runs to its end, and all it leaves behind must equal the undisturbed run's: weights, optimizer, curves,
TensorBoard's, outputs, scores, and no file more. Figures of time are left out.
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
    """The command under test and how it does when nobody disturbs it.

    Attributes:
        overrides: What the user gave.
        folder: Holds the caches and the run folders.
        seed: Decides all moments.
        seconds: Duration of the undisturbed run, its cache prepared.
        preparing: Seconds until a run with an empty cache has its data.
        reference: What it left behind.
    """

    overrides: list[str]
    folder: Path
    seed: int
    seconds: float = 0.0
    preparing: float = 0.0
    reference: dict[str, Any] | None = None

    def start(self, trial: str, cache: str) -> subprocess.Popen[bytes]:
        """Starts the command in a process group of its own; its messages go to a file beside the run folder."""
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
        """Runs the command to its end; None, or how it failed."""
        code = self.start(trial, cache).wait()
        if code == 0:
            return None
        lines = (self.folder / trial / "messages.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        return f"ended with code {code}: {next((line for line in reversed(lines) if line), 'no message')}"


@dataclass(frozen=True)
class Trial:
    """What became of a run that was killed.

    Attributes:
        number: From 1.
        kills: For each, seconds after the start and the phase it hit; at least one.
        resumed: The step that each start went on from.
        faults: In what it differs from the undisturbed run.
    """

    number: int
    kills: list[tuple[float, str]]
    resumed: list[int]
    faults: list[str]

    def row(self) -> str:
        """A row of the table."""
        moments = ", ".join(f"{seconds:.2f} s" for seconds, _ in self.kills)
        phases = ", ".join(phase for _, phase in self.kills)
        resumed = ", ".join(map(str, self.resumed)) or "the start"
        return f"| {self.number} | {moments} | {phases} | {resumed} | {'; '.join(self.faults) or 'identical'} |"


def main() -> None:
    """Runs the reference and the trials, prints a table; exit code 1 if any run differs."""
    options, overrides = parse()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="torture-")).resolve()
    experiment = undisturbed(overrides, folder, options.seed)
    print(f"undisturbed: {experiment.seconds:.1f} s, {experiment.preparing:.1f} s with an empty cache before training")
    print("| trial | killed after | during | went on from step | result |\n| --- | --- | --- | --- | --- |", flush=True)
    trials = []
    with ThreadPoolExecutor(options.jobs) as pool:
        numbers = range(1, math.ceil(options.kills / options.kills_per_run) + 1)
        for trial in pool.map(lambda number: attempt(experiment, number, kills=options.kills_per_run), numbers):
            trials.append(trial)
            print(trial.row(), flush=True)
    hit = Counter(phase for trial in trials for _, phase in trial.kills)
    differing = [trial for trial in trials if trial.faults]
    print(f"\nkills: {hit.total()} ({', '.join(f'{count} {phase}' for phase, count in hit.most_common())})")
    print(f"runs: {len(trials)}, identical to the undisturbed one: {len(trials) - len(differing)}")
    if differing:
        sys.exit(f"they lie in {', '.join(str(folder / f'trial-{trial.number}') for trial in differing)}")
    if not options.folder:
        shutil.rmtree(folder)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The options, and the overrides of the command under test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many in all")
    parser.add_argument("--kills-per-run", type=int, default=1, help="how many each run suffers")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side")
    parser.add_argument("--folder", help="where caches and run folders go; default: a temporary folder")
    return parser.parse_known_args()


def undisturbed(overrides: list[str], folder: Path, seed: int) -> Experiment:
    """Prepares the cache, runs the command once more with it, and keeps its duration and what it left behind."""
    experiment = Experiment(overrides, folder, seed)
    began = time.monotonic()
    process = experiment.start("unprepared", "cache")
    while process.poll() is None and not (folder / "unprepared" / NAME / "config.yaml").exists():
        time.sleep(0.01)  # config.yaml is written once the data are there
    preparing = time.monotonic() - began
    kill(process)
    shutil.rmtree(folder / "reference", ignore_errors=True)
    began = time.monotonic()
    failure = experiment.finish("reference", "cache")
    if failure is not None:
        sys.exit(f"the undisturbed run {failure}")
    seconds = time.monotonic() - began
    reference = contents(folder / "reference" / NAME)
    return Experiment(overrides, folder, seed, seconds, preparing, reference)


def attempt(experiment: Experiment, number: int, *, kills: int) -> Trial:
    """One run: killed as often as asked for, finished, compared; its folder is kept if it differs."""
    draw = random.Random(f"{experiment.seed} {number}")
    name = f"trial-{number}"
    cold, at_save = number % 10 == 0, number % 4 == 0
    cache = f"{name}/cache" if cold else "cache"
    run = experiment.folder / name / NAME
    shutil.rmtree(run.parent, ignore_errors=True)
    suffered: list[tuple[float, str]] = []
    while len(suffered) < kills:
        process = experiment.start(name, cache)
        seconds = disturb(
            process, draw, until=experiment.preparing if cold else experiment.seconds, watched=run if at_save else None
        )
        if seconds is not None:
            suffered.append((seconds, phase(run)))
        elif suffered:
            break  # what was left of it took less time
        else:
            shutil.rmtree(run.parent)  # faster than the undisturbed one: once more, with another moment
    failure = experiment.finish(name, cache)
    messages = (run.parent / "messages.txt").read_text(encoding="utf-8", errors="replace")
    resumed = [int(step) for step in _RESUMED.findall(messages)]
    faults = [failure] if failure else differences(experiment.reference or {}, contents(run))
    if not faults:
        shutil.rmtree(run.parent)
    return Trial(number, suffered, resumed, faults)


def disturb(
    process: subprocess.Popen[bytes], draw: random.Random, *, until: float, watched: Path | None
) -> float | None:
    """Kills the process at a random moment; seconds after its start, or None if it had ended.

    Args:
        process: Has just been started.
        draw: Decides the moment.
        until: The latest moment in seconds.
        watched: A run folder: the kill waits for the next save there.
    """
    began = time.monotonic()
    moment, within = draw.uniform(0, until), draw.uniform(0, _SAVE_SECONDS)
    while process.poll() is None and time.monotonic() - began < moment:
        time.sleep(min(0.01, max(0.0, moment - (time.monotonic() - began))))
    while watched is not None and process.poll() is None and not saving(watched):
        time.sleep(_POLL_SECONDS)
    if watched is not None:
        time.sleep(within)
    if process.poll() is not None:
        return None
    seconds = time.monotonic() - began
    kill(process)
    return seconds


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    try:
        return any(".tmp-" in entry.name for entry in os.scandir(run / "checkpoints"))
    except FileNotFoundError:
        return False


def phase(run: Path) -> str:
    """What a killed run was doing, by what it left behind."""
    if (run / "results.json").exists():
        return "leaving"
    if not (run / "config.yaml").exists():
        return "start-up, preparing"
    if saving(run):
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
