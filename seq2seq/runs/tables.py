"""Text tables: a model's parameters, a run's scores, the ranking of a sweep."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.metrics.signature import Signature
from seq2seq.runs.folder import refuse_external_links
from seq2seq.system.plain_yaml import flatten, read_mapping

_ABSENT = "–"
# Errors of reading numbers from damaged or foreign JSON; the last two: huge numbers and unlimited nesting.
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def parameter_table(parameters: Iterable[tuple[str, int]]) -> str:
    """Formats the number of parameters of each top-level module, and the total.

    Args:
        parameters: Name and number of elements of each tensor. `Module.named_parameters()` lists a shared
            tensor once, so that tied weights count once, for the module that comes first.
    """
    sizes: Counter[str] = Counter()
    for name, size in parameters:
        sizes[name.split(".")[0]] += size
    total = sizes.total()
    rows = [["module", "parameters", "share"]]
    rows += [[module, f"{size:,}", f"{size / max(total, 1):.1%}"] for module, size in sizes.items()]
    rows.append(["total", f"{total:,}", ""])
    return _align_columns(rows, right={1, 2})


def results_table(results: Mapping[str, Any]) -> str:
    """Formats the test scores of `results.json`: one row per test set and metric, with the signatures below."""
    rows = [["test set", "metric", "score", "95 % interval"]]
    for test_set, scores in results.get("test", {}).items():
        for metric, entry in scores.items():
            interval = f"{entry['low']:.2f} to {entry['high']:.2f}" if "low" in entry else ""
            rows.append([test_set, metric, f"{entry['score']:.2f}", interval])
    if len(rows) == 1:
        return "no test sets were scored"
    tables = [_align_columns(rows, right={2})]
    for test_set, baselines in results.get("baselines", {}).items():
        tables.append(_baselines_table(test_set, {"model": results["test"][test_set], **baselines}))
    return "\n\n".join([*tables, _signatures(results["test"])])


def _signatures(test: Mapping[str, Mapping[str, Any]]) -> str:
    """Lists signatures with their metrics; signatures that differ only in their type are merged."""
    groups: dict[str, dict[str, str]] = {}
    for scores in test.values():
        for metric, entry in scores.items():
            shared = str(Signature.parse(entry["signature"]).without("type"))
            groups.setdefault(shared, {})[metric] = entry["signature"]
    lines = ["signatures (each in full in results.json)"]
    for shared, metrics in groups.items():
        full = set(metrics.values())
        lines += [", ".join(metrics), f"  {full.pop() if len(full) == 1 else shared}"]
    return "\n".join(lines)


def _baselines_table(test_set: str, systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the scores of a model and its baselines: one row per metric, one column per system."""
    metrics = dict.fromkeys(metric for name, scores in systems.items() if name != "model" for metric in scores)
    rows = [[test_set, *systems]]
    for metric in metrics:
        entries = [scores.get(metric) for scores in systems.values()]
        rows.append([metric, *(_ABSENT if entry is None else f"{entry['score']:.2f}" for entry in entries)])
    return _align_columns(rows, right=set(range(1, len(systems) + 1)))


def metrics_table(metrics_by_model: Mapping[str, Mapping[str, float]]) -> str:
    """Formats metrics of several models: one row per model, one column per metric of the first model."""
    names = list(next(iter(metrics_by_model.values()), {}))
    rows = [["", *names]]
    rows += [[model, *(f"{metrics[name]:.3f}" for name in names)] for model, metrics in metrics_by_model.items()]
    return _align_columns(rows, right=set(range(1, len(names) + 1)))


@dataclass(frozen=True)
class _Run:
    """A run of the sweep, as read from its folder.

    Attributes:
        name: Path relative to the sweep's folder.
        config: Values of its config.yaml by full key.
        metric: The monitored metric, a tag such as valid/bleu.
        mode: max or min.
        value: The objective; None if there is no finite one.
        step: The best step of a complete run, else the last logged step.
        status: "complete", or what is wrong.
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


def sweep_table(folder: Path, *, as_json: bool = False) -> str:
    """Ranks the runs below a folder, best objective first, with the config keys in which they differ.

    Runs that monitor different metrics are ranked separately. Incomplete runs come last, with their progress and
    the last value of their metric.

    Args:
        folder: A sweep's folder, `outputs/<name>`, or any folder with run folders at most two levels deep.
        as_json: Whether to format a list of objects with the same content instead of a Markdown table.

    Raises:
        UserError: The folder does not exist or has no runs.
    """
    if not folder.is_dir():
        raise UserError(f"folder={folder} is not a folder: give the one that contains the runs, such as outputs/NAME")
    runs = [_read_run(path, name=path.relative_to(folder).as_posix()) for path in _run_folders(folder)]
    if not runs:
        raise UserError(f"folder={folder} has no runs in it: no folder with a config.yaml, up to two levels deep")
    keys = _differing_keys([run.config for run in runs])
    rows = list(_ranked(runs))
    if as_json:
        records = [_record(rank, run, keys) for rank, run in rows]
        return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False)
    header = ["rank", "run", "objective", "value", "step", *keys, "status"]
    cells = [[_cell(value) for value in _row(rank, run, keys)] for rank, run in rows]
    return markdown_table([header, *cells])


def _run_folders(folder: Path, *, depth: int = 2) -> Iterator[Path]:
    """Yields the folders that have a config.yaml, without descending into them."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if (path / "config.yaml").is_file():
            yield path
        elif depth > 1:
            yield from _run_folders(path, depth=depth - 1)


def _read_run(path: Path, *, name: str) -> _Run:
    """Reads a run; its status reports a damaged file, so that the other runs can still be ranked."""
    try:
        refuse_external_links(path)
    except UserError:
        return _Run(name, {}, _ABSENT, None, None, None, "has a link that points outside it")
    try:
        config = flatten(read_mapping(path / "config.yaml"))
    except UserError:
        return _Run(name, {}, _ABSENT, None, None, None, "config.yaml is damaged")
    monitored = str(config.get("trainer.metric", _ABSENT))
    try:
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
        objective = results["objective"]
        mode, metric, value = str(objective["mode"]), str(objective["metric"]), _finite(objective["value"])
        status = "complete" if results["complete"] else "not complete"
        return _Run(name, config, metric, mode, value, int(results["best_step"]), status)
    except FileNotFoundError:
        step, value = _progress(path / "metrics.jsonl", monitored)
        limit = config.get("trainer.max_steps")
        reached = f"step {step or 0}" + (f" of {limit}" if limit else "")
        return _Run(name, config, monitored, None, value, step, f"not complete: {reached}")
    except _UNREADABLE:
        return _Run(name, config, monitored, None, None, None, "results.json is damaged")


def _progress(path: Path, tag: str) -> tuple[int | None, float | None]:
    """Returns the last step in metrics.jsonl and the last value of a tag; None if absent."""
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
                continue  # a line that is being written, or was cut short when the run was killed
    return step, value


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None


def _differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lists the keys, except `name`, whose values differ between configs or that only some configs have."""
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


def _row(rank: int | None, run: _Run, keys: Sequence[str]) -> list[Any]:
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
    text = "".join(char if char.isprintable() else " " for char in text)  # no control characters to the terminal
    return text.replace("|", "\\|")


def shorten(text: str, max_characters: int) -> str:
    """Cuts a text that is longer, so that it ends in an ellipsis."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows, the first being the header, as a Markdown table with aligned columns."""
    widths = _column_widths(rows)
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * max(width, 3) for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _align_columns(rows: Sequence[Sequence[str]], *, right: set[int]) -> str:
    """Formats rows in columns two spaces apart; the columns in `right` are right-aligned."""
    widths = _column_widths(rows)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
