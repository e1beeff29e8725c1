"""The whole configuration: its sections and the rules between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from seq2seq.data.corpus import DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MetricsConfig
from seq2seq.models.config import TieEmbeddings
from seq2seq.models.families import ModelConfig
from seq2seq.models.transformer_config import PositionKind, TransformerConfig
from seq2seq.search.config import SearchConfig
from seq2seq.tokenizers.config import TokenizerConfig
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig, resolve_horizon

LOSS_METRICS = ("loss", "ppl", "accuracy")


@dataclass
class Config:
    """The configuration of a run.

    Attributes:
        name: Name of the run; its folder is ``output_root/name``.
        output_root: Folder of the run folders.
        cache_root: Folder of cached tokenizers and token stores.
        overwrite: Whether to start over in an existing run folder.
        seed: The only seed.
        model: A ``GRUConfig`` or a ``TransformerConfig``, by its ``family``.
    """

    name: str | None = None
    output_root: str = "outputs"
    cache_root: str = "${output_root}/.cache"
    overwrite: bool = False
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: Any = field(default_factory=TransformerConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        """Checks the rules between sections."""
        if isinstance(self.model, DictConfig | Mapping):
            return  # a schema for Hydra, not a configuration
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: must be at least 0 and below 2^63")
        _check_name(self.name)
        model = cast(ModelConfig, self.model)
        if model.copy and not self.tokenizer.joint:
            raise UserError(
                "model.copy=true copies source tokens into the target, but tokenizer.joint=false: source and target "
                "ids differ; set tokenizer.joint=true or model.copy=false"
            )
        if model.tie_embeddings is TieEmbeddings.all and not self.tokenizer.joint:
            raise UserError(
                "model.tie_embeddings=all shares the source's embeddings with the target's, but "
                "tokenizer.joint=false; use model.tie_embeddings=decoder"
            )
        resolve_horizon(self.optim, max_steps=self.trainer.max_steps)
        trainer = self.trainer
        metric = trainer.metric.removeprefix("valid/")
        if metric not in (*LOSS_METRICS, *self.metrics.names):
            raise UserError(
                f"trainer.metric={trainer.metric} is not measured; choose one of "
                + ", ".join(f"valid/{name}" for name in (*LOSS_METRICS, *self.metrics.names))
            )
        if metric not in LOSS_METRICS and trainer.eval_examples == 0:
            raise UserError(f"trainer.metric={trainer.metric} needs decoded examples, but trainer.eval_examples=0")
        _check_vectors(self.tokenizer, model)
        if isinstance(model, TransformerConfig) and model.positions is PositionKind.learned:
            _check_positions(self, model.max_positions)


def _check_name(name: str | None) -> None:
    """Checks that the run folder is below `output_root`, and not hidden."""
    parts = () if name is None else Path(name).parts
    if name and (not parts or Path(name).is_absolute() or any(part.startswith(".") for part in parts)):
        raise UserError(
            f"name={name}: must be a folder below output_root, without .. and hidden folders; "
            "output_root=DIR changes where run folders are"
        )


def _check_vectors(tokenizer: TokenizerConfig, model: ModelConfig) -> None:
    both = tokenizer.source_vectors is not None and tokenizer.target_vectors is not None
    if both and model.tie_embeddings is TieEmbeddings.all:
        raise UserError(
            f"tokenizer.source_vectors={tokenizer.source_vectors} and tokenizer.target_vectors="
            f"{tokenizer.target_vectors} would both fill the single embedding table of model.tie_embeddings=all: "
            "set only one of them, or model.tie_embeddings=decoder"
        )


def _check_positions(config: Config, limit: int) -> None:
    """Checks that no length limit exceeds the number of learned positions."""
    lengths = {
        "data.max_source_length": config.data.max_source_length,
        "data.max_target_length": config.data.max_target_length,
        "search.max_length": config.search.max_length,
    }
    for key, length in lengths.items():
        if length > limit:
            raise UserError(
                f"{key}={length} is above model.max_positions={limit}, which limits model.positions=learned: "
                "lower it, raise model.max_positions, or use model.positions=sinusoidal"
            )
