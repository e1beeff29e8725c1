"""A run that is set aside comes back whole, wherever its move was cut short, until the new one has a checkpoint."""

import os
from pathlib import Path
from typing import Any

import pytest

from seq2seq.errors import UserError
from seq2seq.runs.folder import RunFolder, require_run

NAMES = ("config.yaml", "results.json", "checkpoints/step-00000001/manifest.json", "notes.txt", "tokenizer/a.model")


class Cut(BaseException):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    write(run, "old")
    run.log.write_text("log\n")
    return run


def write(folder: RunFolder, text: str, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(folder: RunFolder) -> dict[str, str]:
    files = (path for path in folder.path.rglob("*") if path.is_file() and path.name != "run.lock")
    return {path.relative_to(folder.path).as_posix(): path.read_text() for path in files}


def replace(folder: RunFolder) -> None:
    """What training does up to its first checkpoint."""
    with folder.lock():
        folder.earlier.set_aside()
        write(folder, "new", NAMES[:1] + NAMES[3:])
        write(folder, "new", NAMES[2:3])
        folder.earlier.discard()


def cut_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ends what runs in the middle: right before the change to the file system of this number."""
    left = [number]

    def cutting(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return function(*args, **kwargs)

        return call

    for name in ("rename", "mkdir", "rmdir", "unlink"):
        monkeypatch.setattr(os, name, cutting(getattr(os, name)))


@pytest.mark.parametrize("again", [False, True], ids=["cut once", "cut while it comes back too"])
def test_one_whole_run_is_there_wherever_it_is_cut(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    old = content(folder)
    new = {"train.log": "log\n", **{name: "new" for name in NAMES if name != "results.json"}}
    outcomes, number, saved = [], 0, 0
    while not outcomes or outcomes[-1] != "finished":
        with monkeypatch.context() as patch:
            cut_after(patch, number)
            try:
                replace(folder)
                outcomes.append("finished")
            except Cut:
                outcomes.append("cut")
        for second in range(30 if again else 0):
            with monkeypatch.context() as patch:
                cut_after(patch, second)
                try:
                    require_run(str(folder.path))
                    break
                except Cut:
                    pass
        require_run(str(folder.path))
        found = content(folder)
        written = found[NAMES[2]] == "new"
        if any(path.name.startswith(".earlier") for path in folder.path.iterdir()):
            assert folder.holds_run(), "only what is being deleted may still be there"
            with folder.lock():
                found = content(folder)
        assert found == (new if written else old), f"change {number}"
        saved += written
        if found == new:
            for entry in NAMES:
                (folder.path / entry).unlink(missing_ok=True)
            write(folder, "old")
        number += 1
    assert number > 20
    assert saved > 5


def test_the_folder_of_a_process_that_replaces_its_run_is_in_use(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seq2seq.runs.folder._SETTLE_SECONDS", 0.2)
    with folder.lock():
        folder.earlier.set_aside()
        with pytest.raises(UserError, match="is in use by process"):
            require_run(str(folder.path))
        write(folder, "new", NAMES[:1] + NAMES[2:])
        require_run(str(folder.path))


def test_files_that_are_no_run_are_not_replaced(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.require_replaceable()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"not a run folder \(it has thesis.tex"):
        run.require_replaceable()
