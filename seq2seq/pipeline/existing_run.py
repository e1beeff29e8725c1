"""The run that a folder already holds: whether it is the same run, complete, or resumed from which checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path

from seq2seq.config import saved
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.pipeline.results import finite_objective
from seq2seq.runs.checkpoint import Checkpoint
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.system.distributed import World
from seq2seq.training.state import TrainState, stop_reason

logger = logging.getLogger("seq2seq")


def latest_checkpoint(checkpoints: CheckpointStore, world: World) -> Checkpoint | None:
    """Returns the checkpoint to resume from, chosen by the main rank, as a disk error could split the ranks."""
    checkpoint = checkpoints.latest_valid() if world.is_main else None
    path = world.broadcast(None if checkpoint is None else checkpoint.path)
    return checkpoints.load(path) if path is not None and not world.is_main else checkpoint


def require_same_config(config: Config, folder: RunFolder) -> None:
    """Raises a UserError if the folder holds a run that differs in a key on which the weights depend."""
    if not folder.holds_run():
        return  # at most a start that failed before the first checkpoint
    differences = saved.diff(saved.load(folder.config), config)
    if differences:
        listed = "\n".join(f"  {key}: {old!r} there, {new!r} now" for key, (old, new) in differences.items())
        raise UserError(
            f"{folder.path} holds a run with another configuration:\n{listed}\n"
            f"choose another name (name=NAME), or start over in this folder (overwrite=true)"
        )


def require_replaceable(config: Config, folder: RunFolder) -> None:
    """Raises a UserError if `overwrite=true` must not replace what is in the folder."""
    folder.require_replaceable()
    base = config.trainer.init_from
    if base is not None and folder.path.resolve() in (Path(base).resolve(), *Path(base).resolve().parents):
        raise UserError(
            f"overwrite=true would replace {folder.path}, which trainer.init_from={base} starts from: choose another "
            "name (name=NAME)"
        )


def objective_if_complete(config: Config, folder: RunFolder) -> float | None:
    """Returns the objective of a run that is complete; None if there is something left to train."""
    results = folder.read_results() if folder.config.exists() else None
    if results is None:
        return None
    checkpoint = CheckpointStore(folder.checkpoints).latest_valid(files=[])
    reason = stop_reason(TrainState.from_json(checkpoint.state), config.trainer) if checkpoint is not None else None
    if reason is None:
        return None  # a limit was raised since
    logger.info("%s is complete: %s", folder.path, reason)
    return finite_objective(results["objective"]["value"], config.trainer.mode)


def require_same_content(checkpoint: Checkpoint, fingerprints: Mapping[str, str], folder: RunFolder) -> None:
    """Raises a UserError unless the fingerprints are those of the checkpoint.

    Test sets, and config keys that the checkpoint does not have, may be new.
    """
    saved_fingerprints = checkpoint.fingerprints
    changed = sorted(
        key
        for key, value in fingerprints.items()
        if saved_fingerprints.get(key) != value
        and (key in saved_fingerprints or not key.startswith(("data.test.", "config.")))
    )
    if changed:
        raise UserError(
            f"{folder.path} was trained on other content: {', '.join(changed)} changed since; restore it, "
            "choose another name (name=NAME), or start over in this folder (overwrite=true)"
        )
