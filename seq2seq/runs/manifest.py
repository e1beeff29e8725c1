"""The manifest of a checkpoint folder: sizes and checksums of its files, to verify what is read."""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.system.files import sha256_of, sync

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
# A manifest has a few words per file and per tied tensor. Anything larger is not one, and is not read into memory.
_MAX_MANIFEST_BYTES = 16 * 2**20
_TENSOR_FILE = re.compile(r"(\w+)\.safetensors", re.ASCII)


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or written by a newer version."""


class NewerFormatError(CheckpointError):
    """A newer version of the program wrote the checkpoint: it is valid, but this version cannot read it."""


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        folder: the checkpoint's folder.
        step: number of optimizer updates when it was saved.
        files: size in bytes and sha256 of each file except the manifest, by file name.
        aliases: for each tensor file, without suffix, the tied names, mapped to the name that is stored.
        fingerprints: what the weights depend on: hashes of data and tokenizer, values of the configuration; in the
            file, `belongs_to`.
    """

    folder: Path
    step: int
    files: Mapping[str, Mapping[str, Any]]
    aliases: Mapping[str, Mapping[str, str]]
    fingerprints: Mapping[str, str]

    @property
    def tensor_files(self) -> list[str]:
        """The names of the tensor files, without suffix."""
        return [name.removesuffix(".safetensors") for name in self.files if name != STATE]

    def read(self, name: str) -> bytes:
        """Read a file and verify it; reading once ensures that the bytes checked are the bytes used.

        Raises:
            CheckpointError: it is missing, or its content has changed.
        """
        path = self.folder / name
        if name not in self.files:
            raise CheckpointError(f"{path}: this checkpoint has no such file, only {', '.join(self.files)}")
        expected = self.files[name]
        data = _read(path, max_bytes=expected["bytes"])
        if len(data) != expected["bytes"]:
            raise CheckpointError(f"{path}: damaged, {len(data)} bytes long instead of {expected['bytes']}")
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise CheckpointError(f"{path}: damaged, its checksum does not match")
        return data

    def read_state(self) -> dict[str, Any]:
        """Read and verify `state.json`.

        Raises:
            CheckpointError: it is missing, its content has changed, or it is not a JSON object.
        """
        return _parse_object(self.read(STATE), self.folder / STATE)

    def write(self) -> None:
        """Write `manifest.json` into the folder and flush it to disk."""
        content = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "files": self.files,
            "aliases": self.aliases,
            "belongs_to": self.fingerprints,
        }
        path = self.folder / MANIFEST
        path.write_text(json.dumps({**content, "sha256": _content_hash(content)}, indent=1), encoding="utf-8")
        sync_and_hash(path)


def sync_and_hash(path: Path) -> dict[str, Any]:
    """Flush a file to disk and return its entry in `Manifest.files`: sha256 and size in bytes."""
    sync(path)
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def read_manifest(folder: Path) -> Manifest:
    """Read and validate the manifest of a checkpoint folder.

    Raises:
        CheckpointError: it is missing or damaged.
        NewerFormatError: a newer version wrote it.
    """
    path = folder / MANIFEST
    values = _parse_object(_read(path, max_bytes=_MAX_MANIFEST_BYTES), path)
    try:
        is_intact = values.get("sha256") == _content_hash(values)
    except RecursionError:  # nested deeply, but not too deeply for json.loads
        is_intact = False
    if not is_intact:
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: checkpoint format {version} is newer than this version of the program, "
            f"which reads up to {FORMAT_VERSION}: update it"
        )
    for key, is_valid in _VALIDATORS.items():
        if key not in values or not is_valid(values[key]):
            raise CheckpointError(f"{path}: damaged, {key} is missing or invalid")
    manifest = Manifest(folder, *(values[key] for key in ("step", "files", "aliases", "belongs_to")))
    if not manifest.aliases.keys() <= set(manifest.tensor_files):
        raise CheckpointError(f"{path}: damaged, aliases names files that are not listed")
    return manifest


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # not a bool


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_file_map(value: object) -> bool:
    """Only accepts file names of this format, so that no path leads out of the folder."""
    return (
        isinstance(value, dict)
        and STATE in value
        and all(
            (name == STATE or _TENSOR_FILE.fullmatch(name))
            and isinstance(entry, dict)
            and _is_count(entry.get("bytes"))
            and isinstance(entry.get("sha256"), str)
            for name, entry in value.items()
        )
    )


_VALIDATORS = {
    "format_version": lambda value: type(value) is int and value == FORMAT_VERSION,
    "step": _is_count,
    "files": _is_file_map,
    "aliases": lambda value: isinstance(value, dict) and all(map(_is_text_map, value.values())),
    "belongs_to": _is_text_map,
}


def _content_hash(content: Mapping[str, Any]) -> str:
    """Return the sha256 of a manifest's content without its own `sha256` field.

    It must be the same in all versions of the format, to tell a newer version from a damaged version number.
    """
    hashed = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def _read(path: Path, *, max_bytes: int) -> bytes:
    """Read a file after checking its size; never opens a pipe or device."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise CheckpointError(f"{path}: cannot be read (not a regular file)")
        if info.st_size > max_bytes:
            raise CheckpointError(f"{path}: damaged, {info.st_size} bytes long instead of at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_object(data: bytes, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too many digits, or nested too deeply
        raise CheckpointError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, not a JSON object")
    return values
