"""Loads models and generators from run folders, for the command line and for Python."""

from collections.abc import Sequence
from pathlib import Path

from seq2seq.config import saved
from seq2seq.config.compose import compose, override_key, run_defaults
from seq2seq.config.given import require_effect, require_used_by
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.inference.generator import Generator
from seq2seq.models.base import Seq2Seq
from seq2seq.models.build import build_model
from seq2seq.pipeline.build import copy_weights, vocabulary
from seq2seq.runs.checkpoint_store import CheckpointStore
from seq2seq.runs.folder import RunFolder, require_run
from seq2seq.system.device import Runtime, build_runtime
from seq2seq.tokenizers.pair import Tokenizers, load_tokenizers


def load_model(
    folder: RunFolder, config: Config, tokenizers: Tokenizers, *, checkpoint: str, runtime: Runtime
) -> tuple[Seq2Seq, int]:
    """Loads a run's model from a checkpoint, on the device and in evaluation mode; returns it and its step.

    Args:
        folder: The run folder.
        config: The run's configuration.
        tokenizers: The run's tokenizers.
        checkpoint: ``best``, ``last``, ``average``, a step, or a path.
        runtime: Device and precision.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged, or it was trained with another
            tokenizer.
    """
    model = build_model(config.model, vocabulary(tokenizers))
    loaded = CheckpointStore(folder.checkpoints).load(checkpoint, files=["model"])
    if loaded.fingerprints.get("tokenizer") not in (None, tokenizers.fingerprint()):
        raise UserError(f"{loaded.path} was trained with another tokenizer than the one in {folder.tokenizer}")
    copy_weights(loaded.tensors["model"], model, origin=str(loaded.path))
    return model.to(runtime.device).eval(), loaded.step


def build_generator(folders: Sequence[RunFolder], config: Config, *, checkpoint: str, runtime: Runtime) -> Generator:
    """Builds a generator from one run, or from several as an ensemble.

    Raises:
        UserError: If the runs' tokenizers differ.
    """
    tokenizers = load_tokenizers(folders[0].tokenizer)
    models = []
    for folder in folders:
        run_config = config
        if folder is not folders[0]:
            if load_tokenizers(folder.tokenizer).fingerprint() != tokenizers.fingerprint():
                raise UserError(
                    f"run={folder.path} has another tokenizer than {folders[0].path}: the runs of an ensemble must "
                    "share one; train them on the same data with the same tokenizer section"
                )
            run_config = saved.load(folder.config)
        models.append(load_model(folder, run_config, tokenizers, checkpoint=checkpoint, runtime=runtime)[0])
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
        overrides: Keys to change, as on the command line of `generate`, in Hydra's grammar:
            ``["search.beam_size=1", "+search=greedy"]``.

    Returns:
        A generator: ``load("outputs/demo_translation").generate(["a line"])``.

    Raises:
        UserError: If the folder is no run, or an override cannot be read, names no key, or could have no effect.
    """
    paths = [run] if isinstance(run, str | Path) else list(run)
    folders = [require_run(str(path)) for path in paths]
    defaults = run_defaults(saved.load(folders[0].config), Config)
    config = parse(compose("generate", overrides, defaults=defaults))
    given = [override_key(override) for override in overrides]
    require_used_by("generate", given)
    require_effect(config, given)
    runtime = build_runtime(config.trainer.device, config.trainer.precision)
    return build_generator(folders, config, checkpoint=checkpoint, runtime=runtime)
