"""The manifest of a checkpoint folder: what its files must be, so that what is read is just what was written."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
# A manifest has a few words a file and a tied tensor. What is larger is something else, not to be read into memory.
_MAX_MANIFEST_BYTES = 16 * 2**20
_TENSOR_FILE = re.compile(r"(\w+)\.safetensors", re.ASCII)


class CheckpointError(UserError):
    """A checkpoint that is absent, damaged, or written by a newer version."""


class NewerFormatError(CheckpointError):
    """A checkpoint that a newer version of the program wrote: sound, but not for this one to read."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder says of itself.

    Attributes:
        folder: the checkpoint's.
        step: number of updates made when it was saved.
        files: the size in bytes and the sha256 of each file but the manifest, by its name.
        aliases: for each tensor file, without suffix, the names that share the tensor of another name.
        belongs_to: the fingerprints of what the checkpoint is of use with.
    """

    folder: Path
    step: int
    files: Mapping[str, Mapping[str, Any]]
    aliases: Mapping[str, Mapping[str, str]]
    belongs_to: Mapping[str, str]

    @property
    def tensor_files(self) -> list[str]:
        """The names of the tensor files, without suffix."""
        return [name.removesuffix(".safetensors") for name in self.files if name != STATE]

    def read(self, name: str) -> bytes:
        """The content of a file, read once so that what was checked is what gets used.

        Raises:
            CheckpointError: it is absent, or not what was written.
        """
        path = self.folder / name
        if name not in self.files:
            raise CheckpointError(f"{path}: this checkpoint holds no such file, only {', '.join(self.files)}")
        expected = self.files[name]
        data = _read(path, at_most=expected["bytes"])
        if len(data) != expected["bytes"]:
            raise CheckpointError(f"{path}: damaged, {len(data)} bytes long instead of {expected['bytes']}")
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise CheckpointError(f"{path}: damaged, its checksum does not match")
        return data

    def read_state(self) -> dict[str, Any]:
        """The JSON state.

        Raises:
            CheckpointError: it is absent, or not what was written, or no JSON object.
        """
        return _parse(self.read(STATE), self.folder / STATE)

    def write(self) -> None:
        """Write it into its folder and flush it to the disk."""
        content = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "files": self.files,
            "aliases": self.aliases,
            "belongs_to": self.belongs_to,
        }
        path = self.folder / MANIFEST
        path.write_text(json.dumps({**content, "sha256": _digest_of(content)}, indent=1), encoding="utf-8")
        seal(path)


def seal(path: Path) -> dict[str, Any]:
    """Flush a file to the disk and return its size and hash for `Manifest.files`."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint folder; nothing in it is taken on trust.

    Raises:
        CheckpointError: it is absent or damaged.
        NewerFormatError: a newer version wrote it.
    """
    path = folder / MANIFEST
    values = _parse(_read(path, at_most=_MAX_MANIFEST_BYTES), path)
    try:
        is_sound = values.get("sha256") == _digest_of(values)
    except RecursionError:  # nested just not too deep to be read
        is_sound = False
    if not is_sound:
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: checkpoint format {version} is newer than this version of the program, "
            f"which reads up to {FORMAT_VERSION}: update it"
        )
    for key, is_fit in _FIELDS.items():
        if key not in values or not is_fit(values[key]):
            raise CheckpointError(f"{path}: damaged, {key} is absent or not what a manifest has there")
    manifest = Manifest(folder, *(values[key] for key in ("step", "files", "aliases", "belongs_to")))
    if not manifest.aliases.keys() <= set(manifest.tensor_files):
        raise CheckpointError(f"{path}: damaged, aliases is of files that it does not list")
    return manifest


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # not a bool


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_file_map(value: object) -> bool:
    """Names of this format only: no path leads out of the folder."""
    return (
        isinstance(value, dict)
        and STATE in value
        and all(
            (name == STATE or _TENSOR_FILE.fullmatch(name))
            and isinstance(sealed, dict)
            and _is_count(sealed.get("bytes"))
            and isinstance(sealed.get("sha256"), str)
            for name, sealed in value.items()
        )
    )


def _is_alias_map(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text_map(names) for names in value.values())


_FIELDS = {
    "format_version": lambda value: type(value) is int and value == FORMAT_VERSION,
    "step": _is_count,
    "files": _is_file_map,
    "aliases": _is_alias_map,
    "belongs_to": _is_text_map,
}


def _digest_of(content: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's content, its own `sha256` field left out.

    All versions of the format compute it so: a newer version can be told from a damaged number.
    """
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read(path: Path, *, at_most: int) -> bytes:
    """The content of a file; its size is looked at first, and a pipe or device is never opened."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path}: cannot be read (not a regular file)")
        if found.st_size > at_most:
            raise CheckpointError(f"{path}: damaged, {found.st_size} bytes long instead of at most {at_most}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8, no JSON, numbers or nesting beyond limits
        raise CheckpointError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, not a JSON object")
    return values
