#!/usr/bin/env python3
"""Mutation testing: draws one-line changes to the package by a seed, and reports those that no test detects.

    python scripts/reliability/mutate.py --seed 1 --count 300 --json outputs/mutants-1.json
    python scripts/reliability/mutate.py --seed 2 --count 100 seq2seq/search seq2seq/models
    python scripts/reliability/mutate.py --again outputs/mutants-1.json       # the survivors of that run

Each mutant runs in a copy of the working tree against the fast tests that execute its line, the narrowest first, until
one fails. A mutant that takes far longer than the tests took before counts as killed and is listed. The fast tests run
once at the start, to record which lines each executes and how long it takes; `--coverage FILE` stores that for further
draws on the same tree.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from queue import Queue
from typing import Any
from xml.etree import ElementTree

from mutants import Mutant, compiles, mutants_of

ROOT = Path(__file__).resolve().parents[2]
# Command-line shells, plots and reports are covered by the tests of the command line.
SCOPE = [
    "seq2seq/config", "seq2seq/training", "seq2seq/inference", "seq2seq/search", "seq2seq/models", "seq2seq/data",
    "seq2seq/tokenizers", "seq2seq/metrics", "seq2seq/pipeline/build.py", "seq2seq/pipeline/load.py",
    "seq2seq/pipeline/results.py", "seq2seq/pipeline/resume.py", "seq2seq/runs/averaging.py",
    "seq2seq/runs/checkpoint.py", "seq2seq/runs/checkpoint_store.py",
    "seq2seq/runs/folder.py", "seq2seq/runs/manifest.py", "seq2seq/system/device.py",
    "seq2seq/system/distributed.py", "seq2seq/system/files.py",
]  # fmt: skip
FAST = "not slow and not gpu"
_TRAINING_TESTS = ("tests/faults/", "tests/integration/")
# Imported once by the fork server: torch alone takes longer than most tests.
_PRELOADED = ["torch", "torch.distributed", "torch.utils._python_dispatch", "numpy", "hydra", "omegaconf", "sacrebleu",
              "sentencepiece", "safetensors.torch", "hypothesis", "pytest", "matplotlib.figure",
              "torch.utils.tensorboard"]  # fmt: skip
_SLACK = 30.0  # seconds that the tests of a mutant may take beyond three times their normal duration


@dataclass(frozen=True)
class Outcome:
    """The outcome of testing a mutant.

    Attributes:
        status: ``killed``, ``timeout``, ``survived``, or ``uncovered`` if no test executes its line.
        test: The test that failed.
        tests: Number of tests selected for its line.
        seconds: Duration.
    """

    status: str
    test: str
    tests: int
    seconds: float


@dataclass(frozen=True)
class LineCoverage:
    """The tests that execute each line, and the duration of each test.

    Attributes:
        lines: Tests by path and line.
        imported: Lines by path that run when the module is imported, whichever test comes first.
        seconds: Duration of each test.
    """

    lines: Mapping[str, Mapping[int, list[str]]]
    imported: Mapping[str, list[int]]
    seconds: Mapping[str, float]

    def tests(self, mutant: Mutant, *, budget: float) -> list[str]:
        """Returns the tests that execute the line of a mutant, as many as fit into a budget in seconds.

        The narrowest come first: tests that execute few lines make assertions about these. For a line that runs when
        its module is imported, tests of the configuration come before them, because they check defaults. Tests whose
        fixtures train runs come last: the seconds of a run are attributed to the first test that needs it.
        """
        by_line = self.lines.get(mutant.path, {})
        found = set(by_line.get(mutant.line, []))
        at_import = mutant.line in self.imported.get(mutant.path, [])
        if at_import:  # recorded only for tests whose subprocesses import the module
            found = {test for tests in by_line.values() for test in tests}

        def sort_key(test: str) -> tuple[bool, bool, int, str]:
            checks_defaults = at_import and test.startswith("tests/configs/")
            return test.startswith(_TRAINING_TESTS), not checks_defaults, self._breadth[test], test

        tests = sorted(found, key=sort_key)
        within_budget = sum(total <= budget for total in accumulate(self.seconds[test] for test in tests))
        return tests[: max(1, within_budget)]

    @cached_property
    def _breadth(self) -> Counter[str]:
        """Number of lines that each test executes."""
        return Counter(test for by_line in self.lines.values() for tests in by_line.values() for test in tests)


def measure(workers: int, tests: list[str]) -> LineCoverage:
    """Runs the fast tests once and records the lines that each executes, including those of its subprocesses."""
    import coverage

    with tempfile.TemporaryDirectory() as folder:
        settings, data, times = Path(folder, "coveragerc"), Path(folder, "coverage"), Path(folder, "junit.xml")
        settings.write_text(
            "[run]\nsource = seq2seq\nrelative_files = true\nparallel = true\n"
            f"context = ${{PYTEST_CURRENT_TEST-}}\ndata_file = {data}\n"
        )
        Path(folder, "subprocesses.py").write_text(  # for subprocesses: pytest-cov measures the tests themselves
            "import os\nif 'PYTEST_XDIST_WORKER' in os.environ:\n"
            f"    os.environ['COVERAGE_PROCESS_START'] = {str(settings)!r}\n"
        )
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile", "-m", FAST, "--cov",
             f"--cov-config={settings}", "--cov-context=test", "--cov-report=", f"--junitxml={times}",
             "-o", "junit_family=xunit1", "-p", "subprocesses", *tests],
            cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        )  # fmt: skip
        store = coverage.CoverageData(str(data))
        store.read()
        seconds: dict[str, float] = {
            f"{case.get('file')}::{case.get('name')}": float(case.get("time", 0))
            for case in ElementTree.parse(times).iter("testcase")
            if not any(case.findall(outcome) for outcome in ("skipped", "failure", "error"))
        }
        return _line_coverage(store, seconds)


def _line_coverage(store: Any, seconds: dict[str, float]) -> LineCoverage:
    by_file = defaultdict(list)
    for test in seconds:
        by_file[test.split("::")[0]].append(test)
    lines: dict[str, dict[int, list[str]]] = {}
    imported: dict[str, list[int]] = {}
    for path in store.measured_files():
        file = ROOT / path  # relative for the tests' own process, absolute for others
        if not file.is_relative_to(ROOT):
            continue  # of an installed copy of the package
        name = file.relative_to(ROOT).as_posix()
        for line, contexts in store.contexts_by_lineno(path).items():
            tests: set[str] = set()
            for context in contexts:
                test, _, phase = context.replace(" (", "|").replace(")", "").rpartition("|")
                if phase == "setup":  # may be a fixture shared by the whole file
                    tests |= set(by_file.get(test.split("::")[0], []))
                elif test in seconds:
                    tests.add(test)
                elif not context:
                    imported.setdefault(name, []).append(line)
            if tests:
                lines.setdefault(name, {})[line] = sorted(tests)
    return LineCoverage(lines, imported, seconds)


class Worker:
    """A copy of the working tree in which one mutant at a time is tested.

    Args:
        folder: Folder for the copy.
    """

    def __init__(self, folder: Path):
        self._tree = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self._clock = int(time.time())

    def test(self, mutant: Mutant, tests: list[str], expected: float) -> Outcome:
        """Runs the tests on the mutant."""
        if not tests:
            return Outcome("uncovered", "", 0, 0.0)
        start = time.monotonic()
        path = self._tree / mutant.path
        source = path.read_bytes()
        try:
            self._write(path, mutant.apply(source))
            status, test = self.run(tests, 3 * expected + _SLACK)
        finally:
            self._write(path, source)
        return Outcome(status, test, len(tests), round(time.monotonic() - start, 1))

    def _write(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self._clock += 2  # compiled files are compared by mtime in whole seconds
        os.utime(path, (self._clock, self._clock))

    def run(self, tests: list[str], seconds: float) -> tuple[str, str]:
        """Runs tests on the current tree; returns the status and the test that failed."""
        log = self._tree / "mutant.log"
        process = multiprocessing.get_context("forkserver").Process(target=_run, args=(self._tree, tests, log))
        process.start()
        process.join(seconds)
        if process.is_alive():
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return "timeout", ""
        text = log.read_text(encoding="utf-8", errors="replace")
        failed = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if process.exitcode == 0:
            return "survived", ""
        if "ImportError while loading conftest" in text:
            return "killed", "conftest"
        if process.exitcode == 4 and not any(line.startswith("ERROR tests") for line in failed):
            raise RuntimeError(f"pytest does not find its tests:\n{text[-3000:]}")
        return "killed", failed[0].split(" - ")[0] if failed else f"exit {process.exitcode}"


def _run(tree: Path, tests: list[str], log: Path) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, and a mutant may send it
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import pytest

    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=60"]
    code = pytest.main([*options, *tests])
    sys.stdout.flush()
    os._exit(int(code))


def examine(mutants: list[Mutant], coverage: LineCoverage, *, workers: int, budget: float) -> list[Outcome]:
    """Tests all mutants with several workers; prints each outcome as it is known."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        free: Queue[Worker] = Queue()
        for index in range(workers):
            free.put(Worker(Path(folder, f"tree{index}")))
        done = Counter[str]()

        def examine_one(mutant: Mutant) -> Outcome:
            tests = coverage.tests(mutant, budget=budget)
            worker = free.get()
            try:
                outcome = worker.test(mutant, tests, sum(coverage.seconds[test] for test in tests))
            finally:
                free.put(worker)
            done[outcome.status] += 1
            print(
                f"{done.total():4d}/{len(mutants)}  {outcome.status:9s} {outcome.seconds:6.1f} s  {mutant}", flush=True
            )
            return outcome

        return list(pool.map(examine_one, mutants))


def summary(results: Iterable[tuple[Mutant, Outcome]]) -> str:
    """Returns a Markdown table of drawn and killed mutants by folder, after a list of those not killed by a test."""
    by_folder: dict[str, Counter[str]] = defaultdict(Counter)
    not_killed = []
    for mutant, outcome in results:
        by_folder[str(Path(mutant.path).parent)][outcome.status] += 1
        if outcome.status != "killed":
            not_killed.append(f"{outcome.status:9s} {mutant}")
    total = sum(by_folder.values(), Counter[str]())
    lines = [
        "| folder | drawn | killed | of these by time | survived | % killed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, counts in [*sorted(by_folder.items()), ("all", total)]:
        killed = counts["killed"] + counts["timeout"]
        drawn = counts.total()
        alive = drawn - killed
        lines.append(
            f"| {name} | {drawn} | {killed} | {counts['timeout']} | {alive} | {100 * killed / max(drawn, 1):.1f} |"
        )
    return "\n".join([*sorted(not_killed), "", *lines])


def draw(paths: list[str], *, seed: int, count: int) -> list[Mutant]:
    """Draws mutants of files and folders by a seed."""
    found = []
    for path in paths:
        if not (ROOT / path).exists():
            raise SystemExit(f"{path}: no such file or folder in {ROOT}")
        files = [ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py"))
        found += [mutant for file in files for mutant in mutants_of(ROOT, file)]
    random.Random(seed).shuffle(found)
    return list(islice((mutant for mutant in found if compiles(mutant, ROOT)), count))


def main() -> None:
    """Draws mutants, tests them and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths", nargs="*", default=SCOPE, help="files and folders to draw from; default: all but shells and reports"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2, help="number of mutants to test at a time")
    parser.add_argument("--budget", type=float, default=60.0, help="maximum seconds of tests per mutant")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="the tests to run")
    parser.add_argument("--again", type=Path, help="an earlier --json file: tests its survivors again")
    parser.add_argument("--coverage", type=Path, help="file for the lines that each test executes; read if it exists")
    parser.add_argument("--json", type=Path, help="file for all outcomes")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if options.again:
        earlier = json.loads(options.again.read_text(encoding="utf-8"))
        mutants = [
            Mutant(**each["mutant"]) for each in earlier if each["outcome"]["status"] in ("survived", "uncovered")
        ]
    else:
        mutants = draw(options.paths, seed=options.seed, count=options.count)
    if options.coverage and options.coverage.exists():
        saved = json.loads(options.coverage.read_text(encoding="utf-8"))
        saved["lines"] = {path: {int(n): tests for n, tests in lines.items()} for path, lines in saved["lines"].items()}
        coverage = LineCoverage(**saved)
    else:
        coverage = measure(options.workers, options.tests)
        if options.coverage:
            options.coverage.write_text(json.dumps(asdict(coverage)), encoding="utf-8")
    outcomes = examine(mutants, coverage, workers=options.workers, budget=options.budget)
    results = list(zip(mutants, outcomes, strict=True))
    if options.json:
        values = [{"mutant": asdict(mutant), "outcome": asdict(outcome)} for mutant, outcome in results]
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(summary(results))


if __name__ == "__main__":
    main()
