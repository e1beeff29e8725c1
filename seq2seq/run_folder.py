"""The run folder: what lies where, who may write there, and small files written whole or not at all."""

import fcntl
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.files import write_bytes


class RunFolder:
    """The paths of one run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.provenance = path / "provenance.json"
        self.log = path / "train.log"
        self.tokenizer = path / "tokenizer"
        self.checkpoints = path / "checkpoints"
        self.generations = path / "generations"
        self.results = path / "results.json"

    def create(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
            UserError: If it cannot.
        """
        probe = self.path / f".probe-{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror}; choose another place with output_root=DIR"
            ) from error

    def clear(self) -> None:
        """Removes a run from the folder; call it under the lock.

        Raises:
            UserError: If what is there is no run.
        """
        entries = [entry for entry in self.path.iterdir() if entry.name not in ("run.lock", self.log.name)]
        if entries and not self.config.exists():
            raise UserError(
                f"overwrite=true: {self.path} is no run folder (it has {entries[0].name} and no config.yaml); "
                "remove it yourself or choose another name"
            )
        for entry in sorted(entries, key=lambda entry: entry == self.config):  # the mark of a run goes last
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing here; the operating system frees it when this one ends, however it does.

        Raises:
            UserError: If another process holds it.
        """
        path = self.path / "run.lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(
                    f"the run folder {self.path} is in use by {holder}; wait for it, stop it, or choose another name"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def read_results(self) -> dict[str, Any] | None:
        """The final scores; None while the run is not complete."""
        if not self.results.exists():
            return None
        results: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        return results


def require_run(path: str, *, key: str = "run") -> RunFolder:
    """The folder of an existing run, which the user named by a key.

    Raises:
        UserError: If the path is no run folder.
    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        what = "has no config.yaml" if folder.path.is_dir() else "does not exist"
        raise UserError(f"{key}={path} is no run folder: it {what}; give the folder that `seq2seq train` wrote")
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file under a temporary name and renames it, so that readers see all of it or none."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON, as ``write_text`` does; a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command_line() -> str:
    """The command that this process runs, as a user would type it.

    Under Hydra ``sys.argv[0]`` is ``seq2seq VERB``, see ``cli.application``.
    """
    import shlex

    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".rstrip()
