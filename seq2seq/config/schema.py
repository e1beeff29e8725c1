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
from seq2seq.training.config import LOSS_METRICS, TrainerConfig
from seq2seq.training.optim_config import OptimConfig, Schedule, resolve_horizon


@dataclass
class Config:
    """The configuration of a run.

    Attributes:
        name: Name of the run; its folder is ``output_root/name``.
        output_root: Folder of the run folders.
        cache_root: Folder of cached tokenizers and token stores.
        overwrite: Whether to start over in an existing run folder. The run there is deleted when the new one has its
            first checkpoint; if the start fails before, it is back.
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
        model = cast(ModelConfig, self.model)
        tokenizer = self.tokenizer
        trainer = self.trainer
        metric = trainer.metric.removeprefix("valid/")
        metrics = (*LOSS_METRICS, *self.metrics.names)
        tie_all = model.tie_embeddings is TieEmbeddings.all
        rules = [  # whether each holds, and the message otherwise
            (0 <= self.seed < 2**63, f"seed={self.seed}: must be at least 0 and below 2^63"),
            (
                not self.name or _is_visible_folder(Path(self.name)),
                f"name={self.name}: must be a folder below output_root, without .. and hidden folders; "
                "output_root=DIR changes where run folders are",
            ),
            (
                tokenizer.joint or not model.copy,
                "model.copy=true copies source tokens into the target, but tokenizer.joint=false: source and target "
                "ids differ; set tokenizer.joint=true or model.copy=false",
            ),
            (
                tokenizer.joint or not tie_all,
                "model.tie_embeddings=all shares the source's embeddings with the target's, but "
                "tokenizer.joint=false; use model.tie_embeddings=decoder",
            ),
            (
                metric in metrics,
                f"trainer.metric={trainer.metric} is not measured; choose one of "
                + ", ".join(f"valid/{name}" for name in metrics),
            ),
            (
                metric in LOSS_METRICS or trainer.eval_examples > 0,
                f"trainer.metric={trainer.metric} needs decoded examples, but trainer.eval_examples=0",
            ),
            (
                tokenizer.source_vectors is None or tokenizer.target_vectors is None or not tie_all,
                f"tokenizer.source_vectors={tokenizer.source_vectors} and tokenizer.target_vectors="
                f"{tokenizer.target_vectors} would both fill the single embedding table of model.tie_embeddings=all: "
                "set only one of them, or model.tie_embeddings=decoder",
            ),
            (
                self.optim.schedule is not Schedule.plateau
                or trainer.patience is None
                or trainer.patience > self.optim.plateau_patience,
                f"trainer.patience={trainer.patience} ends the run before optim.schedule=plateau lowers the learning "
                f"rate, after optim.plateau_patience={self.optim.plateau_patience} evaluations without improvement: "
                "raise trainer.patience or lower optim.plateau_patience",
            ),
        ]
        if isinstance(model, TransformerConfig) and model.positions is PositionKind.learned:
            lengths = {
                "data.max_source_length": self.data.max_source_length,
                "data.max_target_length": self.data.max_target_length,
                "search.max_length": self.search.max_length,
            }
            rules += [
                (
                    length <= model.max_positions,
                    f"{key}={length} is above model.max_positions={model.max_positions}, which limits "
                    "model.positions=learned: lower it, raise model.max_positions, or use model.positions=sinusoidal",
                )
                for key, length in lengths.items()
            ]
        for holds, message in rules:
            if not holds:
                raise UserError(message)
        resolve_horizon(self.optim, max_steps=trainer.max_steps)


def _is_visible_folder(path: Path) -> bool:
    return bool(path.parts) and not path.is_absolute() and not any(part.startswith(".") for part in path.parts)
