"""From a configuration to working parts: model, optimizer step, batches, evaluator."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config.schema import Config
from seq2seq.data.loader import BatchLoader, LoaderConfig
from seq2seq.data.prepare import Prepared
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.inference.evaluator import EvaluationConfig, Evaluator
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.runs.checkpoint import CheckpointStore
from seq2seq.system.device import Runtime, seed_step
from seq2seq.system.distributed import World
from seq2seq.tokenizers.pair import Tokenizers
from seq2seq.training.step import TrainStep

LOGGER = logging.getLogger("seq2seq")


def vocabulary(tokenizers: Tokenizers) -> Vocabulary:
    """What a model needs to know of its tokenizers, whose reserved ids are those that models expect."""
    return Vocabulary(
        source_size=tokenizers.source.vocab_size,
        target_size=tokenizers.target.vocab_size,
        joint=tokenizers.joint,
    )


def build_training(
    config: Config,
    prepared: Prepared,
    *,
    runtime: Runtime,
    world: World,
    starts: bool = True,
    store_of_epoch: Callable[[int], TokenStore] | None = None,
) -> tuple[TrainStep, BatchLoader]:
    """What a run trains with: the model on its device, its optimizer step, and the batches of each step.

    Args:
        config: Of the run.
        prepared: Its data.
        runtime: Device and precision.
        world: The processes that share the run.
        starts: Whether the model gets its first weights; false where a checkpoint gives it others.
        store_of_epoch: See ``BatchLoader``; as the configuration says where it is None.

    Raises:
        UserError: If first weights cannot be read, or do not fit the model.
    """
    seed_step(config.seed, step=-1)
    model = build_model(config.model, vocabulary(prepared.tokenizers))
    if starts:
        load_first_weights(model, config, prepared.tokenizers)
    model.to(runtime.device).train()
    step = TrainStep(model, config.trainer, config.optim, runtime=runtime, world=world, seed=config.seed)
    loader = build_loader(
        config, store_of_epoch or _stores(config, prepared, world), world=world, pinned=runtime.pinned
    )
    return step, loader


def _stores(config: Config, prepared: Prepared, world: World) -> Callable[[int], TokenStore]:
    """The training set of each epoch, which subword regularisation draws anew."""

    def store_of_epoch(epoch: int) -> TokenStore:
        if config.tokenizer.sampling_alpha == 0:
            return prepared.train
        drawn = prepared.train.resampled(
            prepared.tokenizers, seed=config.seed, epoch=epoch, folder=Path(config.cache_root) / "epochs"
        )
        cut = drawn.report.source.truncated + drawn.report.target.truncated
        if cut and world.is_main:
            LOGGER.info("epoch %d: as drawn, %d texts are longer than the limits and are cut", epoch, cut)
        return drawn

    return store_of_epoch


def build_loader(
    config: Config, store_of_epoch: Callable[[int], TokenStore], *, world: World | None = None, pinned: bool = False
) -> BatchLoader:
    """The batches of a run.

    Args:
        config: Of the run.
        store_of_epoch: See ``BatchLoader``.
        world: The processes that share the run; None if it is one.
        pinned: Whether batches are put into page-locked memory.
    """
    world = world or World()
    return BatchLoader(
        store_of_epoch,
        LoaderConfig(
            batch_tokens=config.trainer.batch_tokens,
            accumulate=config.trainer.accumulate,
            max_source_length=config.data.max_source_length,
            max_target_length=config.data.max_target_length,
            seed=config.seed,
            rank=world.rank,
            size=world.size,
            pinned=pinned,
        ),
    )


def build_evaluator(
    config: Config, tokenizers: Tokenizers, *, runtime: Runtime, world: World | None = None
) -> Evaluator:
    """The evaluator that a configuration describes."""
    return Evaluator(
        EvaluationConfig(
            search=config.search,
            metrics=config.metrics,
            target_language=config.data.target_language,
            batch_tokens=config.trainer.batch_tokens,
            max_source_length=config.data.max_source_length,
            max_target_length=config.data.max_target_length,
            seed=config.seed,
        ),
        tokenizers,
        runtime=runtime,
        world=world,
    )


def load_first_weights(model: Seq2Seq, config: Config, tokenizers: Tokenizers) -> None:
    """Gives a model the weights of another run, or pretrained word vectors, where the configuration names them.

    Raises:
        UserError: If they cannot be read, or do not fit the model.
    """
    if config.trainer.init_from is not None:
        copy_weights(_base_weights(Path(config.trainer.init_from)), model, origin=config.trainer.init_from)
        return
    from seq2seq.tokenizers.word_vectors import load_vectors

    for side in ("source", "target"):
        path = getattr(config.tokenizer, f"{side}_vectors")
        if path is None:
            continue
        tokenizer = getattr(tokenizers, side)
        vectors, found = load_vectors(Path(path), tokenizer.pieces(range(tokenizer.vocab_size)))
        model.load_embeddings(side, torch.from_numpy(vectors), found=torch.from_numpy(found))
        LOGGER.info("%s vectors: %d of %d tokens found in %s", side, int(found.sum()), len(found), path)


def _base_weights(path: Path) -> dict[str, Tensor]:
    """Verified weights of a run's best checkpoint, or of a checkpoint folder."""
    checkpoints = path / "checkpoints"
    store = CheckpointStore(checkpoints if checkpoints.is_dir() else path.parent)
    chosen = store.resolve("best") if checkpoints.is_dir() else path
    return store.load(chosen, files=["model"]).tensors["model"]


def copy_weights(weights: Mapping[str, Tensor], model: Seq2Seq, *, origin: str) -> None:
    """Copies a checkpoint's weights into a model.

    Raises:
        UserError: If a name or a shape differs.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        difference = f"{name} has shape {given.get(name)} there and {own.get(name)} here"
        if name not in given:
            difference = f"it has no {name}, which this model has"
        elif name not in own:
            difference = f"it has {name}, which this model has not"
        others = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise UserError(
            f"{origin} does not fit the model section: {difference}{others}; use the model section that it was trained "
            "with"
        )
    model.load_state_dict(dict(weights))
