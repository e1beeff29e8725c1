"""Tables for people: a model's parameters, a run's scores, the ranking of a sweep."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.runs.folder import refuse_links_out
from seq2seq.system.plain_yaml import read_mapping

_ABSENT = "–"
# What JSON raises on its way to numbers if it is damaged or none of ours; the last two, numbers and nests without end.
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def parameter_table(parameters: Iterable[tuple[str, int]]) -> str:
    """Formats the number of parameters of each top module, and their sum.

    Args:
        parameters: Name and number of elements of each tensor. `Module.named_parameters()` names a shared
            tensor once, so that tied weights count once, under the module that comes first.
    """
    sizes: Counter[str] = Counter()
    for name, size in parameters:
        sizes[name.split(".")[0]] += size
    total = sizes.total()
    rows = [["module", "parameters", "share"]]
    rows += [[module, f"{size:,}", f"{size / max(total, 1):.1%}"] for module, size in sizes.items()]
    rows.append(["total", f"{total:,}", ""])
    return _aligned(rows, right={1, 2})


def results_table(results: Mapping[str, Any]) -> str:
    """Formats the test scores of `results.json`: a line for each test set and metric, the signatures below."""
    rows = [["test set", "metric", "score", "95 % interval"]]
    for test_set, scores in results.get("test", {}).items():
        for metric, entry in scores.items():
            interval = f"{entry['low']:.2f} to {entry['high']:.2f}" if "low" in entry else ""
            rows.append([test_set, metric, f"{entry['score']:.2f}", interval])
    if len(rows) == 1:
        return "no test sets were scored"
    tables = [_aligned(rows, right={2})]
    for test_set, baselines in results.get("baselines", {}).items():
        tables.append(_baselines_table(test_set, {"model": results["test"][test_set], **baselines}))
    return "\n\n".join([*tables, _signatures(results["test"])])


def _signatures(test: Mapping[str, Mapping[str, Any]]) -> str:
    """Lists signatures with the metrics that they belong to; those that differ in their type only are one."""
    groups: dict[str, dict[str, str]] = {}
    for scores in test.values():
        for metric, entry in scores.items():
            fields = [field for field in entry["signature"].split("|") if not field.startswith("type:")]
            groups.setdefault("|".join(fields), {})[metric] = entry["signature"]
    lines = ["signatures (each in full in results.json)"]
    for shared, metrics in groups.items():
        whole = set(metrics.values())
        lines += [", ".join(metrics), f"  {whole.pop() if len(whole) == 1 else shared}"]
    return "\n".join(lines)


def _baselines_table(test_set: str, systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats a model's scores above those of its baselines: a line a metric, a column a system."""
    metrics = dict.fromkeys(metric for name, scores in systems.items() if name != "model" for metric in scores)
    rows = [[test_set, *systems]]
    for metric in metrics:
        entries = [scores.get(metric) for scores in systems.values()]
        rows.append([metric, *(_ABSENT if entry is None else f"{entry['score']:.2f}" for entry in entries)])
    return _aligned(rows, right=set(range(1, len(systems) + 1)))


def comparison_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Formats the figures of several models, a line a model; the first one's figures are the columns."""
    names = list(next(iter(rows.values()), {}))
    table = [["", *names]]
    table += [[label, *(f"{figures[name]:.3f}" for name in names)] for label, figures in rows.items()]
    return _aligned(table, right=set(range(1, len(names) + 1)))


@dataclass(frozen=True)
class _Run:
    """What one run folder tells about itself.

    Attributes:
        name: Path below the folder of the sweep.
        config: Full key to value of its config.yaml.
        metric: What it watches, a tag such as valid/bleu.
        mode: max or min.
        value: The objective; None without one that is finite.
        step: Best step of a complete run, last logged one of another.
        status: "complete", or what is the matter.
    """

    name: str
    config: Mapping[str, Any]
    metric: str
    mode: str | None
    value: float | None
    step: int | None
    status: str

    @property
    def complete(self) -> bool:
        return self.status == "complete"


def sweep_table(folder: Path, *, format: str = "markdown") -> str:
    """Ranks the runs below a folder, best objective first, with the config keys in which they differ.

    Where runs watch different metrics, each metric has a ranking of its own. Runs that are not complete come
    last, with how far they got and the last value of what they watch.

    Args:
        folder: A sweep's folder, `outputs/<name>`, or any folder with run folders at most two levels down.
        format: `markdown` for a table, `json` for a list of objects with the same content.

    Raises:
        UserError: The folder does not exist or has no runs, or the format is unknown.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"format={format} is unknown: choose markdown or json")
    if not folder.is_dir():
        raise UserError(f"folder={folder} is no folder: give the one that holds the runs, such as outputs/NAME")
    runs = [_read_run(path, name=path.relative_to(folder).as_posix()) for path in _run_folders(folder)]
    if not runs:
        raise UserError(f"folder={folder} has no runs in it: no folder with a config.yaml, two levels down")
    keys = _differing_keys([run.config for run in runs])
    rows = list(_ranked(runs))
    if format == "json":
        records = [_record(rank, run, keys) for rank, run in rows]
        return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False)
    header = ["rank", "run", "objective", "value", "step", *keys, "status"]
    cells = [[_cell(value) for value in _columns(rank, run, keys)] for rank, run in rows]
    return markdown_table([header, *cells])


def _run_folders(folder: Path, *, depth: int = 2) -> Iterator[Path]:
    """Yields the folders with a config.yaml, not looking into them any further."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if (path / "config.yaml").is_file():
            yield path
        elif depth > 1:
            yield from _run_folders(path, depth=depth - 1)


def _read_run(path: Path, *, name: str) -> _Run:
    """Reads what there is; a damaged file makes a run that says so, so that the others can be ranked."""
    try:
        refuse_links_out(path)
    except UserError:
        return _Run(name, {}, _ABSENT, None, None, None, "has a link that leads out of it")
    try:
        config = dict(_flatten(read_mapping(path / "config.yaml")))
    except UserError:
        return _Run(name, {}, _ABSENT, None, None, None, "config.yaml is damaged")
    watched = str(config.get("trainer.metric", _ABSENT))
    try:
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
        objective = results["objective"]
        mode, metric, value = str(objective["mode"]), str(objective["metric"]), _finite(objective["value"])
        status = "complete" if results["complete"] else "not complete"
        return _Run(name, config, metric, mode, value, int(results["best_step"]), status)
    except FileNotFoundError:
        step, value = _progress(path / "metrics.jsonl", watched)
        limit = config.get("trainer.max_steps")
        reached = f"step {step or 0}" + (f" of {limit}" if limit else "")
        return _Run(name, config, watched, None, value, step, f"not complete: {reached}")
    except _UNREADABLE:
        return _Run(name, config, watched, None, None, None, "results.json is damaged")


def _progress(path: Path, tag: str) -> tuple[int | None, float | None]:
    """Returns the last step in metrics.jsonl and the last value of a tag; None for what is not there."""
    step = value = None
    if not path.is_file():
        return step, value
    with path.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                step = max(step or 0, int(entry["step"]))
                value = _finite(entry["value"]) if entry["tag"] == tag else value
            except _UNREADABLE:
                continue  # a line that is being written, or was when the run was killed
    return step, value


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields full key and value of every leaf; a list is a leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value


def _differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lists the keys that some of the configs have different values of, or only some have; not the name."""
    readable = [config for config in configs if config]
    keys = dict.fromkeys(key for config in readable for key in config)
    return [
        key for key in keys if key != "name" and len({json.dumps(config.get(key, _ABSENT)) for config in readable}) > 1
    ]


def _ranked(runs: Sequence[_Run]) -> Iterator[tuple[int | None, _Run]]:
    """Yields rank and run, best first within each objective; runs without a rank last."""
    scored = [run for run in runs if run.complete and run.value is not None]
    for metric, mode in dict.fromkeys((run.metric, run.mode) for run in scored):
        group = [run for run in scored if (run.metric, run.mode) == (metric, mode)]
        group.sort(key=lambda run: (run.value or 0.0) * (1 if run.mode == "min" else -1))
        yield from enumerate(group, start=1)
    for run in runs:
        if not run.complete or run.value is None:
            yield None, run


def _columns(rank: int | None, run: _Run, keys: Sequence[str]) -> list[Any]:
    settings = [run.config.get(key, _ABSENT) for key in keys]
    return [
        _ABSENT if rank is None else rank,
        run.name,
        run.metric,
        _ABSENT if run.value is None else f"{run.value:.4f}",
        _ABSENT if run.step is None else run.step,
        *settings,
        run.status,
    ]


def _record(rank: int | None, run: _Run, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "rank": rank,
        "run": run.name,
        "complete": run.complete,
        "objective": {"metric": run.metric, "mode": run.mode, "value": run.value},
        "step": run.step,
        "config": {key: run.config[key] for key in keys if key in run.config},
        "status": run.status,
    }


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(char if char.isprintable() else " " for char in text)  # a terminal obeys some that are not
    return text.replace("|", "\\|")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lays out rows, the first of them the header, as a Markdown table that reads well as it is."""
    widths = _widths(rows)
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * max(width, 3) for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _aligned(rows: Sequence[Sequence[str]], *, right: set[int]) -> str:
    """Lays out rows in columns two spaces apart, numbers to the right."""
    widths = _widths(rows)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
