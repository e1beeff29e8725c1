"""The least and the largest value of every number with limits, what lies just beyond them, and every default.

Runs and scripts depend on defaults: a change of one has to be meant. After such a change,
`python tests/configs/test_ranges.py` writes defaults.json anew.
"""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.config.schema import Config
from seq2seq.data.corpus import DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MetricsConfig
from seq2seq.models.families import FAMILIES
from seq2seq.search.config import SearchConfig
from seq2seq.system.plain_yaml import flatten
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig

DEFAULTS = Path(__file__).with_name("defaults.json")
BELOW_ONE = math.nextafter(1.0, 0.0)
ABOVE_ONE = math.nextafter(1.0, 2.0)
TINY = math.nextafter(0.0, 1.0)
WEEK = 7 * 24 * 60

# Valid values at the limits, and values just beyond them.
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "trainer.threads": ([1, 1024], [0, 1025]),
    "trainer.max_steps": ([1], [0]),
    "trainer.max_epochs": ([1], [0]),
    "trainer.max_minutes": ([TINY], [0.0, math.inf]),
    "trainer.stop_after_minutes": ([TINY], [0.0, math.inf]),
    "trainer.batch_tokens": ([1], [0]),
    "trainer.accumulate": ([1], [0]),
    "trainer.overfit_batches": ([1], [0]),
    "trainer.label_smoothing": ([0.0, BELOW_ONE], [-TINY, 1.0]),
    "trainer.coverage_loss_weight": ([0.0], [-TINY, math.inf]),
    "trainer.coverage_loss_start": ([0], [-1]),
    "trainer.log_every": ([1], [0]),
    "trainer.eval_every": ([1], [0]),
    "trainer.eval_examples": ([0], [-1]),
    "trainer.samples": ([0], [-1]),
    "trainer.attention_images": ([0, 4], [-1, 5]),
    "trainer.save_every": ([1], [0]),
    "trainer.keep_last": ([1], [0]),
    "trainer.keep_best": ([1], [0]),
    "trainer.patience": ([1], [0]),
    "trainer.average_checkpoints": ([1], [0]),
    "trainer.max_skipped_steps": ([1], [0]),
    "trainer.profile_steps": ([[1, 1], [3, 9]], [[], [1], [0, 1], [2, 1], [1, 2, 3]]),
    "trainer.timeout_minutes": ([TINY, WEEK], [0.0, math.nextafter(WEEK, math.inf)]),
    "optim.lr": ([TINY], [0.0, math.inf]),
    "optim.betas": ([[0.0, BELOW_ONE], [BELOW_ONE, 0.0]], [[0.9], [0.9, 0.9, 0.9], [-TINY, 0.9], [0.9, 1.0]]),
    "optim.eps": ([TINY], [0.0, math.inf]),
    "optim.weight_decay": ([0.0], [-TINY, math.inf]),
    "optim.warmup_steps": ([0], [-1]),
    "optim.min_lr_ratio": ([0.0, 1.0], [-TINY, ABOVE_ONE]),
    "optim.clip_norm": ([0.0], [-TINY, math.inf]),
    "optim.plateau_factor": ([TINY, BELOW_ONE], [0.0, 1.0]),
    "optim.plateau_patience": ([1], [0]),
    "optim.ema_decay": ([0.0, BELOW_ONE], [-TINY, 1.0]),
    "optim.horizon_steps": ([1], [0]),
    "search.beam_size": ([1], [0]),
    "search.length_penalty": ([0.0, 10.0], [-TINY, math.nextafter(10.0, 11.0)]),
    "search.coverage_penalty": ([0.0], [-TINY, math.inf]),
    "search.min_length": ([0, 256], [-1, 257]),
    "search.max_length": ([1], [0]),
    "search.max_length_ratio": ([TINY], [0.0, math.inf]),
    "search.batch_size": ([1], [0]),
    "search.batch_tokens": ([1], [0]),
    "search.n_best": ([1, 5], [0, 6]),
    "search.temperature": ([TINY], [0.0, math.inf]),
    "search.top_k": ([0], [-1]),
    "search.top_p": ([TINY, 1.0], [0.0, ABOVE_ONE]),
    "search.no_repeat_ngram": ([0], [-1]),
    "search.seed": ([0, 2**63 - 1], [-1, 2**63]),
    "seed": ([0, 2**63 - 1], [-1, 2**63]),
    "data.max_source_length": ([2], [1]),
    "data.max_target_length": ([2], [1]),
    "data.max_length_ratio": ([1.0], [BELOW_ONE, math.inf]),
    "metrics.bootstrap": ([0, 2, 1_000_000], [-1, 1, 1_000_001]),
    "metrics.lead_sentences": ([1], [0]),
    "metrics.lead_words": ([1], [0]),
    "model.dropout": ([0.0, BELOW_ONE], [-TINY, 1.0]),
    "model.attention_dropout": ([0.0, BELOW_ONE], [-TINY, 1.0]),
    "model.activation_dropout": ([0.0, BELOW_ONE], [-TINY, 1.0]),
    "model.d_ff": ([1, 65_536], [0, 65_537]),
    "model.d_model": ([4, 65_536], [0, 65_540]),
    "model.num_heads": ([1, 256], [0]),
    "model.encoder_layers": ([1, 65_536], [0, 65_537]),
    "model.decoder_layers": ([1, 65_536], [0, 65_537]),
    "model.max_positions": ([1, 65_536], [0, 65_537]),
    "model.embedding_size": ([1, 65_536], [0, 65_537]),
    "model.encoder_size": ([1, 65_536], [0, 65_537]),
    "model.attention_size": ([1, 65_536], [0, 65_537]),
}


SECTIONS = {
    "trainer": TrainerConfig, "optim": OptimConfig, "search": SearchConfig, "data": DataConfig,
    "metrics": MetricsConfig, "": Config,
}  # fmt: skip


@pytest.mark.parametrize("key", LIMITS)
def test_limits_are_where_they_are_said_to_be(key: str) -> None:
    section, _, name = key.rpartition(".")
    schemas = [SECTIONS[section]] if section in SECTIONS else list(FAMILIES.values())
    inside, beyond = LIMITS[key]
    for schema in [each for each in schemas if name in {field.name for field in fields(each)}]:
        for value in inside:
            assert getattr(schema(**{name: value}), name) == value
        for value in beyond:
            with pytest.raises(UserError, match=rf"^{key}=".replace(".", r"\.")):
                schema(**{name: value})


def defaults() -> dict[str, dict[str, Any]]:
    """Every default by the family of the model."""
    return {family: flatten(saved.to_mapping(parse({"model": {"family": family}}))) for family in FAMILIES}


def test_defaults_change_only_when_that_is_meant() -> None:
    assert defaults() == json.loads(DEFAULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
