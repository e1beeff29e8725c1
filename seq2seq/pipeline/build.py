"""Builds the parts of a run from its configuration: model, optimizer step, loader, evaluator."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config import saved
from seq2seq.config.schema import Config
from seq2seq.data.loader import BatchLoader
from seq2seq.data.prepare import PreparedData
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.inference.evaluator import Evaluator
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.pipeline.base_run import base_folder
from seq2seq.runs.checkpoint import Checkpoint, load_checkpoint
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder
from seq2seq.runs.manifest import read_manifest
from seq2seq.system.device import Runtime, build_runtime, keep_freed_memory, seed_step, set_threads
from seq2seq.system.distributed import World
from seq2seq.tokenizers.base import SPECIAL_TOKENS, Tokenizer
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers
from seq2seq.training.config import InitTokenizer, TrainerConfig
from seq2seq.training.step import TrainStep

logger = logging.getLogger("seq2seq")


def vocabulary(tokenizers: Tokenizers) -> Vocabulary:
    """Returns what a model needs to know about its tokenizers; both use the same reserved ids."""
    return Vocabulary(
        source_size=tokenizers.source.vocab_size,
        target_size=tokenizers.target.vocab_size,
        joint=tokenizers.joint,
    )


def start_runtime(config: TrainerConfig, *, local_rank: int = 0) -> Runtime:
    """Sets up this process for computing as the trainer's section says, and returns its device and precision.

    Raises:
        UserError: See ``build_runtime``.
    """
    set_threads(config.threads)
    keep_freed_memory()
    return build_runtime(config.device, config.precision, local_rank=local_rank)


def build_training(
    config: Config,
    prepared: PreparedData,
    *,
    runtime: Runtime,
    world: World,
    load_pretrained: bool = True,
) -> tuple[TrainStep, BatchLoader]:
    """Builds the optimizer step, with the model on its device, and the loader of its batches.

    Args:
        config: Configuration of the run.
        prepared: Prepared data of the run.
        runtime: Device and precision.
        world: The processes that share the run.
        load_pretrained: Whether to load the pretrained weights that the configuration names; false if a checkpoint
            will be loaded.

    Raises:
        UserError: If pretrained weights cannot be read, or do not fit the model.
    """
    seed_step(config.seed, step=-1)
    model = build_model(config.model, vocabulary(prepared.tokenizers))
    if load_pretrained:
        load_pretrained_weights(model, config, prepared.tokenizers)
    model.to(runtime.device).train()
    step = TrainStep(model, config.trainer, config.optim, runtime=runtime, world=world, seed=config.seed)
    loader = BatchLoader(
        partial(_store_for_epoch, config, prepared, world),
        batch_tokens=config.trainer.batch_tokens,
        accumulate=config.trainer.accumulate,
        seed=config.seed,
        world=world,
        overfit_batches=config.trainer.overfit_batches,
        pin_memory=runtime.pinned,
    )
    return step, loader


def _store_for_epoch(config: Config, prepared: PreparedData, world: World, epoch: int) -> TokenStore:
    """Returns the training set of an epoch, which subword regularisation resamples each epoch."""
    if config.tokenizer.sampling_alpha == 0:
        return prepared.train
    resampled = prepared.train.resampled(
        prepared.tokenizers, seed=config.seed, epoch=epoch, folder=Path(config.cache_root) / "epochs"
    )
    truncated = resampled.report.source.truncated + resampled.report.target.truncated
    if truncated and world.is_main:
        logger.info("epoch %d: truncated %d texts whose resampled tokens exceed the limits", epoch, truncated)
    return resampled


def build_evaluator(
    config: Config, tokenizers: Tokenizers, *, runtime: Runtime, world: World | None = None
) -> Evaluator:
    """Builds the evaluator of a configuration."""
    return Evaluator(
        tokenizers,
        search=config.search,
        metrics=config.metrics,
        target_language=config.data.target_language,
        batch_tokens=config.trainer.batch_tokens,
        max_source_length=config.data.max_source_length,
        seed=config.seed,
        runtime=runtime,
        world=world,
    )


def load_pretrained_weights(model: Seq2Seq, config: Config, tokenizers: Tokenizers) -> None:
    """Loads the weights of another run, or pretrained word vectors, into a model if the configuration names them.

    Raises:
        UserError: If they cannot be read, or do not fit the model.
    """
    if config.trainer.init_from is not None:
        _load_base_weights(model, config.trainer.init_from, tokenizers, init_tokenizer=config.trainer.init_tokenizer)
        return
    from seq2seq.tokenizers.word_vectors import load_vectors

    for side in ("source", "target"):
        path = getattr(config.tokenizer, f"{side}_vectors")
        if path is None:
            continue
        tokenizer = getattr(tokenizers, side)
        vectors, found = load_vectors(Path(path), tokenizer.pieces(range(tokenizer.vocab_size)))
        model.load_embeddings(side, torch.from_numpy(vectors), found=torch.from_numpy(found))
        logger.info("%s vectors: %d of %d tokens found in %s", side, int(found.sum()), len(found), path)


def base_checkpoint(path: str) -> Path:
    """Returns the checkpoint folder that ``trainer.init_from`` names: a run's best, or that folder itself.

    Raises:
        UserError: If there is none.
    """
    checkpoints = Path(path, "checkpoints")
    return CheckpointStore(checkpoints).resolve("best") if checkpoints.is_dir() else Path(path)


def _load_base_weights(model: Seq2Seq, path: str, tokenizers: Tokenizers, *, init_tokenizer: InitTokenizer) -> None:
    """Loads the weights that ``trainer.init_from`` names; with a tokenizer of its own, the rows of tokens both know."""
    checkpoint = load_checkpoint(base_checkpoint(path), files=["model"])
    weights = checkpoint.tensors["model"]
    logger.info("starting from the weights of step %d in %s", checkpoint.step, checkpoint.path)
    if init_tokenizer is InitTokenizer.own:
        base = load_tokenizers(base_folder(path).tokenizer)
        rows = {side: shared_rows(getattr(tokenizers, side), getattr(base, side)) for side in ("source", "target")}
        for side, (here, _) in rows.items():
            size = getattr(tokenizers, side).vocab_size
            logger.info("%s tokens: %d of %d are known there; the others start at random", side, len(here), size)
        initial = model.state_dict()
        for name, side in model.vocabulary_tables().items():
            here, there = rows[side]
            if name in weights and weights[name].shape[1:] == initial[name].shape[1:]:
                table = initial[name].clone()
                table[here] = weights[name][there].to(table)
                weights[name] = table
    copy_weights(weights, model, origin=path)


def shared_rows(here: Tokenizer, there: Tokenizer) -> tuple[list[int], list[int]]:
    """Returns the ids of the tokens that two tokenizers share, in the one and in the other.

    Special tokens correspond by id, all others by their text.
    """
    ids_there = {token: index for index, token in enumerate(_tokens(there))}
    shared = [(index, ids_there[token]) for index, token in enumerate(_tokens(here)) if token in ids_there]
    return [index for index, _ in shared], [index for _, index in shared]


def _tokens(tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """A key per id: the token's text, and whether it stands for no text (special tokens) or for a byte."""
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    return [(piece, index < len(SPECIAL_TOKENS) or tokenizer.is_byte(index)) for index, piece in enumerate(pieces)]


def base_fingerprint(config: Config, folder: RunFolder, checkpoint: Checkpoint | None) -> dict[str, str]:
    """Returns the sha256 of the weights that the run starts from, by ``base``; empty if it starts from none.

    A run that has a checkpoint keeps what it started from, unless the command line now names another path: then that
    one's weights are looked at.

    Raises:
        UserError: If there is no such run.
    """
    path = config.trainer.init_from
    if path is None:
        return {}
    if checkpoint is not None:
        before = saved.load(folder.config).trainer.init_from
        if before is None or Path(before).resolve() == Path(path).resolve():
            return {key: value for key, value in checkpoint.fingerprints.items() if key == "base"}
        base_folder(path)
    return {"base": read_manifest(base_checkpoint(path)).files["model.safetensors"]["sha256"]}


def copy_weights(weights: Mapping[str, Tensor], model: Seq2Seq, *, origin: str) -> None:
    """Copies a checkpoint's weights into a model.

    Raises:
        UserError: If a name or a shape differs.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    mismatched = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if mismatched:
        name = mismatched[0]
        difference = f"{name} has shape {found.get(name)} there and {expected.get(name)} here"
        if name not in found:
            difference = f"it has no {name}, which this model has"
        elif name not in expected:
            difference = f"it has {name}, which this model does not have"
        others = f", and {len(mismatched) - 1} more differ" if len(mismatched) > 1 else ""
        raise UserError(
            f"{origin} does not fit the model section: {difference}{others}; use the model section that it was trained "
            "with"
        )
    model.load_state_dict(dict(weights))
