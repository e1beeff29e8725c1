"""What a hostile or damaged manifest, and files that keep to its checksums, can do: nothing but be refused."""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.manifest import CheckpointError, NewerFormatError, read_manifest


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def folder(store: CheckpointStore) -> Path:
    shared = torch.ones(3)
    return store.save(7, {"model": {"weight": shared, "tied": shared}}, {"step": 7}, fingerprints={"data": "ab"})


def write_sound(folder: Path, **changes: Any) -> None:
    """Changes fields of a manifest, with the checksum that goes with them; None takes a field away."""
    path = folder / "manifest.json"
    values = {**json.loads(path.read_text()), **changes}
    values = {key: value for key, value in values.items() if value is not None and key != "sha256"}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**values, "sha256": digest}))


def put(folder: Path, name: str, content: bytes) -> None:
    """Puts a file in, with the manifest's blessing."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_sound(folder, files={**files, name: entry})


def weights(header: Any, data: bytes = b"") -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def test_what_is_written_is_read(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest.step, manifest.tensor_files, manifest.fingerprints) == (7, ["model"], {"data": "ab"})
    assert manifest.aliases == {"model": {"weight": "tied"}}
    assert manifest.read_state() == {"step": 7}
    assert manifest.read("state.json") == (folder / "state.json").read_bytes()


def test_a_flipped_bit_is_found_in_every_byte(folder: Path) -> None:
    path = folder / "manifest.json"
    sound = path.read_bytes()
    version = sound.index(b'"format_version": ') + len(b'"format_version": ')
    flips = [(place, place % 8) for place in range(len(sound))] + [(version, bit) for bit in range(8)]
    for place, bit in flips:
        if sound[place : place + 1].isspace():
            continue  # white space between the values means nothing
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
        with pytest.raises(CheckpointError) as caught:
            read_manifest(folder)
        assert not isinstance(caught.value, NewerFormatError)  # a digit that fell over is no newer version
        assert str(path) in str(caught.value)


def test_every_truncation_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    sound = path.read_bytes()
    for size in range(len(sound)):
        path.write_bytes(sound[:size])
        with pytest.raises(CheckpointError, match=r"manifest\.json: damaged"):
            read_manifest(folder)


def test_a_newer_version_is_told_apart_from_damage(store: CheckpointStore, folder: Path) -> None:
    store.save(3, {}, {})
    write_sound(folder, format_version=2, files="as it will be")
    with pytest.raises(NewerFormatError, match=r"manifest\.json: checkpoint format 2 is newer than .*: update it"):
        store.load("7")
    with pytest.raises(NewerFormatError):  # resuming from step 3 would throw away what was trained since
        store.latest_valid()


SEAL = {"sha256": "0" * 64, "bytes": 1}
STATE_ONLY = {"state.json": SEAL}


@pytest.mark.parametrize(
    "fields",
    [
        *({"format_version": value} for value in (None, 0, True, 1.0, "1", [1])),
        *({"step": value} for value in (None, -1, True, 1.5, "7", [], {})),
        *({"files": value} for value in (None, [], {}, "state.json", {"state.json": []}, {"model.safetensors": SEAL})),
        *({"files": {"state.json": value}} for value in ({}, {"bytes": 1}, SEAL | {"bytes": -1})),
        *({"files": {"state.json": value}} for value in (SEAL | {"bytes": "1"}, SEAL | {"sha256": None})),
        *({"files": STATE_ONLY | {name: SEAL}} for name in (
            "../state.json", "../model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "model.pt", "m\n",
            ".safetensors", "a b.safetensors", "é.safetensors", "model.safetensors\0", "manifest.json",
        )),
        *({"aliases": value} for value in (None, [], "x", {"model": []}, {"model": {"a": 1}}, {"model": {"a": None}})),
        *({"aliases": {stem: {"a": "tied"}}} for stem in ("ema", "state", "../model", "")),
        *({"aliases": {"model": value}} for value in ({"a": "unknown"}, {"tied": "tied"}, {"tied": "weight"})),
        *({"belongs_to": value} for value in (None, [], "x", {"data": 1}, {"data": {}})),
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_refused_by_name(
    store: CheckpointStore, folder: Path, fields: dict[str, Any]
) -> None:
    if "files" in fields:
        fields = fields | {"aliases": {}}  # whose files would be missing too
    write_sound(folder, **fields)
    with pytest.raises(CheckpointError, match=r"step-00000007/manifest\.json: "):
        store.load("7")


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000,
                                     b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe{}", b"{}"])  # fmt: skip
def test_json_that_is_no_manifest_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-00000007/manifest\.json: damaged"):
        read_manifest(folder)


def test_nesting_of_any_depth_is_refused_without_a_crash(folder: Path) -> None:
    for depth in range(100, 1200, 7):  # past what Python can read, and what it can read and not write
        (folder / "manifest.json").write_text('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(CheckpointError, match=r"manifest\.json: damaged"):
            read_manifest(folder)


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b"[" * 100_000, b"9" * 5000, b"\xff", b""])
def test_a_state_that_is_no_object_is_refused_by_name(store: CheckpointStore, folder: Path, content: bytes) -> None:
    put(folder, "state.json", content)
    with pytest.raises(CheckpointError, match=r"step-00000007/state\.json: damaged"):
        store.load("7")


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\1", struct.pack("<Q", 2**63) + b"{}", weights([]), weights(b"[" * 100_000), weights(b'{"a":' * 100_000),
        weights({"w": TENSOR}), weights({"w": TENSOR | {"dtype": "XX"}}, b"1234"),
        weights({"w": TENSOR | {"dtype": "F8_E8M0", "shape": [4]}}, b"1234"),
        weights({"w": TENSOR | {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"123"),
        weights({"w": TENSOR | {"shape": [2**63, 0], "data_offsets": [0, 0]}}),
        weights({"w": TENSOR | {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
        weights({"w": TENSOR | {"shape": [-1]}}, b"1234"), weights({"w": TENSOR | {"data_offsets": [4, 0]}}, b"1234"),
        weights({"w": TENSOR, "v": TENSOR}, b"1234"), weights({"__metadata__": 3}),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used_are_refused_by_name(store: CheckpointStore, folder: Path, content: bytes) -> None:
    put(folder, "model.safetensors", content)
    with pytest.raises(CheckpointError, match=r"step-00000007/model\.safetensors: "):
        store.load("7")


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_what_is_no_file_is_never_opened(
    store: CheckpointStore, folder: Path, name: str, make: Callable[[Path], object]
) -> None:
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(CheckpointError, match=f"step-00000007/{name}: "):
        store.load("7")
