"""What a run leaves behind, less what may depend on when and how fast it ran: equal runs have equal contents."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

# Files whose content tells of the place, the time or the process; that they are there is compared.
_CIRCUMSTANCES = ("config.yaml", "provenance.json", "train.log", "run.lock", "manifest.json")
_CLOCKED_TAGS = ("perf/", "system/")


def contents(run: Path) -> dict[str, Any]:
    """Each file and link of a run folder with what must be the same however often the run was killed.

    Checkpoints, tokenizers and outputs by sha256; JSON without figures of time; ``metrics.jsonl`` without its clock and
    the tags that measure speed and memory; event files as TensorBoard's own reader shows them, all under one name.
    A file that a killed process forgot is in it under its name.
    """
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(run):
        paths = [Path(folder, name) for name in sorted(folders + files)]
        for path in paths:
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
    """Says, an entry a line, in what the contents of two runs differ; nothing if they are equal."""
    told = []
    for name in sorted(one.keys() | other.keys()):
        if name not in other:
            told.append(f"{name} is missing")
        elif name not in one:
            told.append(f"{name} should not be there")
        elif one[name] != other[name]:
            told.append(f"{name}: {_first_difference(one[name], other[name])}")
    return told


def _content(path: Path) -> Any:
    if path.name in _CIRCUMSTANCES:
        return "there"
    if path.name == "metrics.jsonl":
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            (record["step"], record["tag"], record["value"])
            for record in records
            if not record["tag"].startswith(_CLOCKED_TAGS)
        ]
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    """JSON without entries whose names say that they are seconds, or something a second."""
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if "_sec" not in key and key != "seconds"}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _curves(folder: Path) -> dict[str, list[Any]]:
    """Scalars, texts, images and settings by tag, each with its step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    everything = {"scalars": 0, "images": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=everything).Reload()
    tags = accumulator.Tags()
    found: dict[str, list[Any]] = {}
    for tag in tags["scalars"]:
        if not tag.startswith(_CLOCKED_TAGS):
            found[tag] = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    for tag in tags["images"]:
        found[tag] = [(e.step, hashlib.sha256(e.encoded_image_string).hexdigest()) for e in accumulator.Images(tag)]
    for tag in tags["tensors"]:
        found[tag] = [(event.step, event.tensor_proto.SerializeToString()) for event in accumulator.Tensors(tag)]
    for tag, metadata in accumulator.summary_metadata.items():
        if metadata.plugin_data.plugin_name == "hparams":  # as text, for the order of the bytes is the process's own
            found[tag] = [str(HParamsPluginData.FromString(metadata.plugin_data.content))]
    return found


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    """Where two values of JSON part."""
    if isinstance(one, dict) and isinstance(other, dict):
        odd = next(key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key))
        return _first_difference(one.get(odd), other.get(odd), f"{where} {odd}")
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        shorter = min(len(one), len(other))
        odd = next((number for number, (a, b) in enumerate(pairs) if a != b), shorter)
        sides = [repr(side[odd])[:80] if odd < len(side) else "nothing" for side in (one, other)]
        return f"{where} entry {odd} of {len(one)}: {sides[0]}, here {sides[1]}".strip()
    return f"{where} {one!r:.80}, here {other!r:.80}".strip()
