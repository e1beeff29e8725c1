"""What a power failure would leave: a name stands for what is whole on the disk."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the names of open files in /proc")


def test_files_are_flushed_before_they_get_their_names_and_names_of_folders_after(
    tmp_path: Path, train_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole run: tokenizers, stores, checkpoints, reports, results, outputs."""
    fsync, renamers = os.fsync, {name: getattr(os, name) for name in ("rename", "replace")}
    flushed: set[Path] = set()
    too_early: list[str] = []
    named: set[Path] = set()
    published: set[Path] = set()

    def flush(handle: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamer(name: str) -> Any:
        def rename(source: Any, target: Any, **options: Any) -> None:
            old, new = Path(source), Path(target)
            parts = [] if old.is_symlink() else old.rglob("*") if old.is_dir() else [old]
            for path in (part for part in parts if part.is_file()):
                if path not in flushed:
                    too_early.append(f"{path} -> {new}")
                flushed.add(new / path.relative_to(old))
            named.add(new.parent)
            if old.is_dir() and not old.is_symlink() and ".tmp-" not in new.name:  # those are about to be deleted
                flushed.discard(new.parent)
                published.add(new.parent)
            renamers[name](source, target, **options)

        return rename

    monkeypatch.setattr(os, "fsync", flush)
    for name in renamers:
        monkeypatch.setattr(os, name, renamer(name))
    train_run(tmp_path, "tokenizer=unigram", "tokenizer.vocab_size=300")
    assert too_early == []
    run, cache = tmp_path / "run", tmp_path / ".cache"
    assert named >= {run, run / "checkpoints", run / "tokenizer", run / "generations"}
    assert published == {run / "checkpoints", cache / "tokenizers", cache / "stores"}
    assert published <= flushed
