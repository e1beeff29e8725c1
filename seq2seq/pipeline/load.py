"""From a configuration or a run folder to working parts: what the command line and notebooks share."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.data.loader import BatchStream, StreamConfig
from seq2seq.data.store import TokenStore
from seq2seq.errors import UserError
from seq2seq.inference.evaluator import EvaluationConfig, Evaluator
from seq2seq.inference.generator import Generator
from seq2seq.models.base import Seq2Seq, Vocabulary
from seq2seq.models.build import build_model
from seq2seq.runs.checkpoint import CheckpointStore
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.config import Device
from seq2seq.system.device import Runtime, build_runtime
from seq2seq.system.distributed import World
from seq2seq.system.plain_yaml import read_mapping
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers

LOGGER = logging.getLogger("seq2seq")


def vocabulary(tokenizers: Tokenizers) -> Vocabulary:
    """What a model needs to know of its tokenizers, whose reserved ids are those that models expect."""
    return Vocabulary(
        source_size=tokenizers.source.vocab_size,
        target_size=tokenizers.target.vocab_size,
        joint=tokenizers.joint,
    )


def load_model(folder: RunFolder, config: Config, *, checkpoint: str, runtime: Runtime) -> tuple[Seq2Seq, int]:
    """A run's model with the weights of a checkpoint, on the device and in evaluation mode, and the step they are of.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged, or it belongs to another tokenizer.
    """
    tokenizers = load_tokenizers(folder.tokenizer)
    model = build_model(config.model, vocabulary(tokenizers))
    store = CheckpointStore(folder.checkpoints)
    loaded = store.load(checkpoint, files=["model"])
    made_with = loaded.belongs_to.get("tokenizer")
    if made_with is not None and made_with != tokenizers.fingerprint():
        raise UserError(f"{loaded.path} belongs to another tokenizer than the one in {folder.tokenizer}")
    copy_weights(loaded.tensors["model"], model, origin=str(loaded.path))
    return model.to(runtime.device).eval(), loaded.step


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


def build_stream(
    config: Config, store_of_epoch: Callable[[int], TokenStore], *, world: World | None = None, pinned: bool = False
) -> BatchStream:
    """The batches of a run.

    Args:
        config: Of the run.
        store_of_epoch: See ``BatchStream``.
        world: The processes that share the run; None if it is one.
        pinned: Whether batches are put into page-locked memory.
    """
    world = world or World()
    return BatchStream(
        store_of_epoch,
        StreamConfig(
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


def build_generator(folders: Sequence[RunFolder], config: Config, *, checkpoint: str, runtime: Runtime) -> Generator:
    """A generator from one run, or from several as an ensemble.

    Raises:
        UserError: If the runs' tokenizers differ.
    """
    tokenizers = load_tokenizers(folders[0].tokenizer)
    models = []
    for folder in folders:
        if load_tokenizers(folder.tokenizer).fingerprint() != tokenizers.fingerprint():
            raise UserError(
                f"run={folder.path} has another tokenizer than {folders[0].path}: an ensemble's runs share one; "
                "train them from the same data with the same tokenizer section"
            )
        own = config if folder is folders[0] else saved.load(folder.config)
        models.append(load_model(folder, own, checkpoint=checkpoint, runtime=runtime)[0])
    return Generator(
        models,
        tokenizers,
        config.search,
        device=runtime.device,
        max_source_length=config.data.max_source_length,
        seed=config.seed,
    )


def load(
    run: str | Path | Sequence[str | Path], *, checkpoint: str = "best", overrides: Sequence[str] = ()
) -> Generator:
    """Loads a trained run for use from Python.

    Args:
        run: Run folder, or several for an ensemble.
        checkpoint: ``best``, ``last``, ``average``, a step, or a path.
        overrides: Keys to change, as on the command line: ``["search.beam_size=1", "trainer.device=cpu"]``.

    Returns:
        A generator: ``load("outputs/demo_translation").generate(["a line"])``.

    Raises:
        UserError: If the folder is no run, or a key does not exist.
    """
    from omegaconf import OmegaConf

    paths = [run] if isinstance(run, str | Path) else list(run)
    folders = [require_run(str(path)) for path in paths]
    values = OmegaConf.merge(
        read_mapping(folders[0].config),
        {"trainer": {"device": Device.auto.value}},  # the machine may be another one
        OmegaConf.from_dotlist(list(overrides)),
    )
    assert OmegaConf.is_dict(values)
    config = parse(values)  # type: ignore[arg-type]
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    return build_generator(folders, config, checkpoint=checkpoint, runtime=runtime)
