"""The run that ``overwrite=true`` replaces: set aside until the new run has a checkpoint, put back if it fails before.

Folders with these names inside the run folder hold the earlier run. A rename leads from each state to the next, so that
a process killed at any moment leaves one of these states, which `EarlierRun.settle` finishes:

==================  ==================================================================================================
``.earlier.moving``  holds part of the earlier run; the rest is still, or again, in the run folder
``.earlier``         holds all of it; everything else in the run folder belongs to the new run
``.earlier.gone``    is being deleted: the new run has a checkpoint
==================  ==================================================================================================
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from seq2seq.system.files import remove, sync

_NAMES = (".earlier.moving", ".earlier", ".earlier.gone")


class EarlierRun:
    """The run that is set aside in a run folder, if there is one.

    Only a process that holds the folder's lock may call what changes files.

    Args:
        folder: The run folder.
        keep: Names of entries that belong to the folder rather than to a run: its locks and its log.
    """

    def __init__(self, folder: Path, keep: frozenset[str]):
        self._folder = folder
        self._keep = keep | set(_NAMES)
        self._moving, self._whole, self._gone = (folder / name for name in _NAMES)

    def is_unsettled(self, has_checkpoint: Callable[[], bool]) -> bool:
        """Whether an earlier run has to be put back, see `settle`, unless a process is just replacing it."""
        return self._moving.exists() or (self._whole.exists() and not has_checkpoint())

    def set_aside(self) -> None:
        """Moves everything of the run in the folder aside; needs no space on the disk but for one empty folder."""
        self._moving.mkdir()
        for entry in self._entries():
            entry.rename(self._moving / entry.name)
        self._moving.rename(self._whole)
        sync(self._folder)

    def discard(self) -> None:
        """Deletes the earlier run, once the new one has a checkpoint."""
        if self._whole.exists():
            self._whole.rename(self._gone)
        if self._gone.exists():
            shutil.rmtree(self._gone, ignore_errors=True)  # NFS keeps files that a reader has open: next time

    def settle(self, has_checkpoint: Callable[[], bool]) -> bool:
        """Puts the earlier run back, or deletes it if the new one has a checkpoint: what a failure or kill left.

        Args:
            has_checkpoint: Whether the run in the folder has a checkpoint.

        Returns:
            Whether the earlier run was put back.
        """
        if self._whole.exists():
            if has_checkpoint():
                self.discard()
                return False
            for entry in self._entries():
                remove(entry)
            self._whole.rename(self._moving)
        self.discard()
        if not self._moving.exists():
            return False
        for entry in self._moving.iterdir():
            entry.rename(self._folder / entry.name)
        self._moving.rmdir()
        sync(self._folder)
        return True

    def _entries(self) -> list[Path]:
        return [entry for entry in self._folder.iterdir() if entry.name not in self._keep]
