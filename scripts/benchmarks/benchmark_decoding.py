"""`benchmark.py generate`: compares this package's search with others, on the weights of one run."""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from benchmark_overrides import check_overrides
from benchmark_turns import Benchmark, Contender, Timings, table, take_turns
from peers import (
    BATCH,
    LENGTH_PENALTY,
    CTranslate2Search,
    HuggingFaceSearch,
    SearchTask,
    best_weights,
    convert_to_ctranslate2,
    supported_contenders,
)

from seq2seq.config import saved
from seq2seq.data.text import read_lines

# Keys that affect only the speed of a search, not its results.
ALLOWED_KEYS = ("search.batch_size", "search.batch_tokens")
_OPTIONS = {
    "search.beam_size": "--beams",
    "search.max_length": "--max-length",
    "search.precision": "--contenders, such as ours-bf16",
    "trainer.precision": "--contenders, such as ours-bf16",
    "trainer.threads": "--threads",
}
# The settings of all contenders, regardless of the run's own search.
_FIXED = {
    "search.length_normalization": "average",
    "search.length_penalty": LENGTH_PENALTY,
    "search.coverage_penalty": 0.0,
    "search.min_length": 0,
    "search.max_length_ratio": "null",
    "search.n_best": 1,
    "search.sampling": "false",
    "search.no_repeat_ngram": 0,
    "trainer.device": "cpu",
}
_SAMPLING_KEYS = ("search.temperature", "search.top_k", "search.top_p", "search.seed")
FIXED_KEYS = {
    **{key: f"give {option}" for key, option in _OPTIONS.items()},
    **{key: f"it is fixed at {value}" for key, value in _FIXED.items()},
    **dict.fromkeys(_SAMPLING_KEYS, "it only affects sampling, which no contender uses"),
    "data.max_source_length": "it is the value of the run",
}


def search_overrides(task: SearchTask, precision: str) -> list[str]:
    """Returns everything that affects the results of our search, as overrides of the run's configuration."""
    keys = {"search.beam_size": task.beam_size, "search.max_length": task.max_length, "search.precision": precision,
            "data.max_source_length": task.max_source_length, **_FIXED}  # fmt: skip
    return [f"{key}={value}" for key, value in keys.items()]


class OurSearch(Benchmark):
    """This package: what `seq2seq generate` does between reading and writing lines."""

    def __init__(self, task: SearchTask, overrides: list[str], precision: str):
        from seq2seq.pipeline import load as api
        from seq2seq.search.config import SearchConfig
        from seq2seq.system.device import set_threads

        set_threads(task.threads)
        self._texts = task.texts
        batching = [f"search.batch_size={BATCH}", f"search.batch_tokens={SearchConfig().batch_tokens}"]
        self._generator = api.load(task.run, overrides=[*batching, *overrides, *search_overrides(task, precision)])

    def turn(self) -> list[str]:
        """Returns the outputs, in order."""
        return self._generator.generate(self._texts)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the contenders for each beam size; prints tables and returns all results."""
    check_overrides(options.overrides, FIXED_KEYS, allowed=ALLOWED_KEYS)
    config = saved.load(options.run_folder / "config.yaml")
    model = asdict(config.model)
    names = supported_contenders(options.contenders, model)
    texts = list(islice(read_lines(options.input), options.sentences))
    results: dict[str, Any] = {"sentences": len(texts), "overrides": options.overrides}
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "ctranslate2"
        if any(name.startswith("ct2-") for name in names):
            convert_to_ctranslate2(best_weights(options.run_folder), model, converted)
        builds = {"ours": (OurSearch, options.overrides), "hf": (HuggingFaceSearch, model),
                  "ct2": (CTranslate2Search, converted)}  # fmt: skip
        searches = {name: builds[name.partition("-")[0]] for name in names}
        for beam_size in options.beams:
            task = SearchTask(
                options.run_folder.resolve(), texts, beam_size, options.max_length, config.data.max_source_length,
                options.threads,
            )  # fmt: skip
            contenders = [
                Contender(name, build, (task, argument, name.partition("-")[2]))
                for name, (build, argument) in searches.items()
            ]
            measured = take_turns(
                contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads,
                profiles=options.profile and options.profile / f"beam-{beam_size}",
            )  # fmt: skip
            rows = results[f"beam_size={beam_size}"] = summarize(measured, sentences=len(texts))
            print(f"\n{'greedy' if beam_size == 1 else f'beam {beam_size}'}, {len(texts):,} sentences\n")
            print(_table(rows))
    return results


def summarize(measured: Mapping[str, Timings], *, sentences: int) -> dict[str, dict[str, Any]]:
    """Returns the results of each contender; equal outputs and ratios are relative to the first contender."""
    first = next(iter(measured.values()))
    return {
        name: {
            "sentences_per_sec": sentences / search.median(),
            "first_times": first.speedup_over(search),
            "first_times_cpu": first.cpu_speedup_over(search),
            "peak_mb": search.peak_mb,
            "equal": statistics.mean(a == b for a, b in zip(search.results[-1], first.results[-1], strict=True)),
            "spread": search.spread(),
            "seconds": search.seconds,
            "cpu_seconds": search.cpu_seconds,
        }
        for name, search in measured.items()
    }


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(rows))
    head = ["search", "sentences/s", f"{first} is × as fast", "in CPU time", "peak MiB", f"outputs as {first} %",
            "spread %"]  # fmt: skip
    return table(
        head,
        [
            [
                name,
                f"{row['sentences_per_sec']:,.1f}",
                *(f"{row[key]:.2f}" for key in ("first_times", "first_times_cpu")),
                f"{row['peak_mb']:,.0f}",
                *(f"{100 * row[key]:.1f}" for key in ("equal", "spread")),
            ]
            for name, row in rows.items()
        ],
    )
