"""The contents of a run folder without times and speeds, so that equal runs have equal contents."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

# Files whose content depends on the folder, the time or the process: only their existence is compared.
_VOLATILE_FILES = ("config.yaml", "provenance.json", "train.log", "run.lock", "manifest.json")
_TIMED_TAGS = ("perf/", "system/")


def contents(run: Path) -> dict[str, Any]:
    """Returns the content of each file and link of a run folder that must not depend on how often the run was killed.

    Checkpoints, tokenizers and outputs by sha256; JSON without times; ``metrics.jsonl`` without its wall time and the
    tags that measure speed and memory; event files as read by TensorBoard, all under one name. Leftovers of a killed
    process are included under their names.
    """
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in sorted(folders + files)):
            name = str(path.relative_to(run))
            if path.is_symlink():
                found[name] = f"link to {os.readlink(path)}"
            elif path.is_file() and not path.name.startswith("events.out.tfevents."):
                found[name] = _content(path)
            elif path.is_dir() and not any(path.iterdir()):
                found[name] = "empty folder"
    found["tensorboard"] = _curves(run / "tensorboard")
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Describes each difference between the contents of two runs; empty if they are equal."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        if name not in other:
            found.append(f"{name} is missing")
        elif name not in one:
            found.append(f"{name} should not be there")
        elif one[name] != other[name]:
            found.append(f"{name}: {_first_difference(one[name], other[name])}")
    return found


def _content(path: Path) -> Any:
    if path.name in _VOLATILE_FILES:
        return "exists"
    if path.name == "metrics.jsonl":
        return [
            (record["step"], record["tag"], record["value"])
            for record in map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if not record["tag"].startswith(_TIMED_TAGS)
        ]
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    """Removes from JSON the entries that are seconds, or rates per second, by their names."""
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if "_sec" not in key and key != "seconds"}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def _curves(folder: Path) -> dict[str, list[Any]]:
    """Returns scalars, texts, images and hyperparameters by tag, each with its step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    no_limits = {"scalars": 0, "images": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=no_limits).Reload()
    tags = accumulator.Tags()
    found: dict[str, list[Any]] = {
        **{tag: [(e.step, e.value) for e in accumulator.Scalars(tag)]
           for tag in tags["scalars"] if not tag.startswith(_TIMED_TAGS)},
        **{tag: [(e.step, e.encoded_image_string) for e in accumulator.Images(tag)] for tag in tags["images"]},
        **{tag: [(e.step, e.tensor_proto.SerializeToString()) for e in accumulator.Tensors(tag)]
           for tag in tags["tensors"]},
    }  # fmt: skip
    for tag, metadata in accumulator.summary_metadata.items():
        if metadata.plugin_data.plugin_name == "hparams":  # as text, because the byte order differs between processes
            found[tag] = [str(HParamsPluginData.FromString(metadata.plugin_data.content))]
    return found


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    """Describes the first difference between two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        key = next(key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key))
        return _first_difference(one.get(key), other.get(key), f"{where} {key}")
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        shorter = min(len(one), len(other))
        index = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
        entries = [repr(values[index])[:80] if index < len(values) else "nothing" for values in (one, other)]
        return f"{where} entry {index} of {len(one)}: {entries[0]}, here {entries[1]}".strip()
    return f"{where} {one!r:.80}, here {other!r:.80}".strip()
