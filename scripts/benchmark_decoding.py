"""`benchmark.py generate`: this package's search beside those of others, on the weights of one run."""

import argparse
import gzip
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark_turns import Contender, Measured, table, take_turns
from peers import CTranslate2Search, HuggingFaceSearch, Task, best_weights, can_compare, convert


class OurSearch:
    """What `seq2seq generate` does between reading and writing lines."""

    def __init__(self, task: Task, overrides: list[str], precision: str):
        from seq2seq import api

        self._texts = task.texts
        keys = {"beam_size": task.beam_size, "max_length": task.max_length, "precision": precision,
                "length_normalization": "average", "length_penalty": 1.0, "n_best": 1, "sampling": False}  # fmt: skip
        fixed = [f"search.{key}={value}" for key, value in keys.items()]
        self._generator = api.load(task.run, overrides=["trainer.device=cpu", *fixed, *overrides])

    def turn(self) -> list[str]:
        """The outputs, in order."""
        return self._generator.generate(self._texts)

    def facts(self) -> dict[str, Any]:
        """Nothing beyond what is measured."""
        return {}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures, for each beam size, those that `options.contenders` names; prints tables and returns all figures."""
    from seq2seq import config as configuration

    model = asdict(configuration.load(options.run_folder / "config.yaml").model)
    names = [name for name in options.contenders if can_compare(name, model)]
    texts = _lines(options.input)[: options.sentences]
    figures: dict[str, Any] = {"sentences": len(texts), "overrides": options.overrides}
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "ctranslate2"
        if any(name.startswith("ct2-") for name in names):
            convert(best_weights(options.run_folder), model, converted)
        for beam_size in options.beams:
            task = Task(options.run_folder.resolve(), texts, beam_size, options.max_length)
            builds = {"ours": (OurSearch, options.overrides), "hf": (HuggingFaceSearch, model),
                      "ct2": (CTranslate2Search, converted)}  # fmt: skip
            contenders = []
            for name in names:
                who, _, precision = name.partition("-")
                build, own = builds[who]
                contenders.append(Contender(name, build, (task, own, precision)))
            measured = take_turns(
                contenders, rounds=options.rounds, warmup=options.warmup, threads=options.threads,
                profiles=options.profile and options.profile / f"beam-{beam_size}",
            )  # fmt: skip
            rows = figures[f"beam_size={beam_size}"] = summary(measured, sentences=len(texts))
            print(f"\n{'greedy' if beam_size == 1 else f'beam {beam_size}'}, {len(texts):,} sentences\n")
            print(_table(rows))
    return figures


def _lines(path: Path) -> list[str]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode().removesuffix("\n").split("\n")


def summary(measured: Mapping[str, Measured], *, sentences: int) -> dict[str, dict[str, Any]]:
    """The figures of each contender; equal outputs and ratios are those to the first one's."""
    first = next(iter(measured.values()))
    return {
        name: {
            "sentences_per_sec": sentences / search.median(),
            "first_times": first.times_faster(search),
            "first_times_cpu": first.times_less_cpu(search),
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
