"""The whole configuration: its schema, the one door through which a mapping becomes dataclasses, and comparisons."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seq2seq import config_rules
from seq2seq.data.corpus import DataConfig
from seq2seq.errors import UserError
from seq2seq.metrics import MetricsConfig
from seq2seq.models.config import TieEmbeddings
from seq2seq.models.families import FAMILIES, ModelConfig
from seq2seq.models.transformer_config import PositionKind, TransformerConfig
from seq2seq.search.config import SearchConfig
from seq2seq.system.plain_yaml import read_mapping
from seq2seq.tokenizers.config import TokenizerConfig
from seq2seq.training.config import TrainerConfig
from seq2seq.training.optim_config import OptimConfig, resolve_horizon

LOSS_METRICS = ("loss", "ppl", "accuracy")

# A run may go on with other values of these: limits, logging, places. What data there is, is compared by content.
FREE_KEYS = (
    "name", "output_root", "cache_root", "overwrite", "search", "metrics",
    "data.root", "data.train", "data.valid", "data.test", "data.source_language", "data.target_language",
    "trainer.device", "trainer.threads", "trainer.compile", "trainer.checkpoint_activations",
    "trainer.max_steps", "trainer.max_epochs", "trainer.max_minutes", "trainer.stop_after_minutes",
    "trainer.patience", "trainer.log_every", "trainer.save_every", "trainer.save_failure", "trainer.keep_last",
    "trainer.keep_best", "trainer.max_skipped_steps", "trainer.samples", "trainer.attention_images",
    "trainer.timeout_minutes",
)  # fmt: skip


@dataclass
class Config:
    """Everything that a run is made from.

    Attributes:
        name: The run's name, part of its folder's path.
        output_root: Where run folders are.
        cache_root: Where tokenizers and token stores are.
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
        """Checks that concern several sections."""
        if isinstance(self.model, DictConfig | Mapping):
            return  # a schema, not yet a configuration
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
        watched = trainer.metric.removeprefix("valid/")
        if watched not in (*LOSS_METRICS, *self.metrics.names):
            raise UserError(
                f"trainer.metric={trainer.metric} is not measured; choose one of "
                + ", ".join(f"valid/{name}" for name in (*LOSS_METRICS, *self.metrics.names))
            )
        if watched not in LOSS_METRICS and trainer.eval_examples == 0:
            raise UserError(f"trainer.metric={trainer.metric} needs decoded examples, but trainer.eval_examples=0")
        _check_vectors(self.tokenizer, model)
        if isinstance(model, TransformerConfig) and model.positions is PositionKind.learned:
            _check_positions(self, model.max_positions)


def _check_name(name: str | None) -> None:
    """A run lies below `output_root`, and beside nothing that is hidden there."""
    parts = () if name is None else Path(name).parts
    if name and (not parts or Path(name).is_absolute() or any(part.startswith(".") for part in parts)):
        raise UserError(
            f"name={name}: must be a folder below output_root, without .. and hidden folders; "
            "output_root=DIR moves where runs are"
        )


def _check_vectors(tokenizer: TokenizerConfig, model: ModelConfig) -> None:
    both = tokenizer.source_vectors is not None and tokenizer.target_vectors is not None
    if both and model.tie_embeddings is TieEmbeddings.all:
        raise UserError(
            f"tokenizer.source_vectors={tokenizer.source_vectors} and tokenizer.target_vectors="
            f"{tokenizer.target_vectors} would fill the one table of model.tie_embeddings=all: "
            "give one of them, or set model.tie_embeddings=decoder"
        )


def _check_positions(config: Config, limit: int) -> None:
    """A learned table has no vector for what lies beyond it."""
    lengths = {
        "data.max_source_length": config.data.max_source_length,
        "data.max_target_length": config.data.max_target_length,
        "search.max_length": config.search.max_length,
    }
    for key, length in lengths.items():
        if length > limit:
            raise UserError(
                f"{key}={length} is above model.max_positions={limit}, and model.positions=learned goes no further: "
                "lower it, raise model.max_positions, or take model.positions=sinusoidal"
            )


def register_schema(verb: str, schema: type, defaults: DictConfig | None = None) -> None:
    """Registers what Hydra checks names and types of a verb's configuration against, as it composes it.

    Only this verb's: whenever Hydra looks into a group of configurations, it first copies all that is registered.

    Args:
        verb: Whose primary configuration begins with ``VERB_schema``.
        schema: Of that configuration.
        defaults: Values of the schema that overrides change, where they are not its own.
    """
    store = ConfigStore.instance()
    node: type | DictConfig = schema
    if issubclass(schema, Config):
        node = composable(schema)
        for family, model in FAMILIES.items():
            store.store(group="model", name=f"{family}_schema", node=model)
    store.store(name=f"{verb}_schema", node=node if defaults is None else defaults)


def composable(schema: type[Config]) -> DictConfig:
    """A schema to which Hydra can add test sets key by key; ``parse`` checks them afterwards."""
    node = OmegaConf.structured(schema)
    node.model = {}  # each family has a schema of its own in the group
    node.data.test._metadata.element_type = Any  # the type of a section refuses the empty mapping it begins as
    return cast(DictConfig, node)


def parse(values: Mapping[str, Any] | DictConfig, schema: type[Config] = Config) -> Config:
    """Turns a mapping, composed or read from a run folder, into checked dataclasses.

    Raises:
        UserError: If a key is unknown, a value has the wrong type, or a rule between keys is broken.
    """
    plain = OmegaConf.to_container(values, resolve=False) if isinstance(values, DictConfig) else dict(values)
    assert isinstance(plain, dict)
    model = plain.get("model") or {}
    if not isinstance(model, Mapping):
        raise UserError(f"model={model}: is a section with keys of its own, not a value")
    family = model.get("family", TransformerConfig.family)
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"model.family={family!s}: no such model; choose one of {', '.join(FAMILIES)}")
    base = _types(schema, family)  # type: ignore[arg-type]  # a class can be hashed, whatever its instances can
    check_keys(plain, base)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(base, plain))
    except OmegaConfBaseException as error:
        key = error.full_key or "configuration"
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{key}: {reason}") from error
    assert isinstance(config, Config)
    config_rules.check_values(flatten(asdict(config)))
    return config


@cache
def _types(schema: type, family: str) -> DictConfig:
    """What values are checked against; made once, for it takes longer than the checks."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    node.model = OmegaConf.structured(FAMILIES[family])
    return node


def check_keys(values: Mapping[Any, Any], schema: DictConfig, prefix: str = "") -> None:
    """Raises a UserError for a key that the schema does not have, naming the nearest one that it has."""
    for key, value in values.items():
        full = prefix + str(key)
        if key not in schema.keys():  # noqa: SIM118 - `in` denies keys whose value is missing
            raise UserError(unknown_key(full, [prefix + str(known) for known in schema.keys()]))  # noqa: SIM118
        node = schema._get_node(key)
        if isinstance(node, ListConfig) and not isinstance(value, list | None):
            raise UserError(f"{full}={value}: must be a list, such as {full}=[a,b]")
        if isinstance(node, DictConfig) and not isinstance(value, Mapping | None):
            raise UserError(f"{full}={value}: is a section with keys of its own, not a value")
        if not isinstance(value, Mapping) or not isinstance(node, DictConfig):
            continue
        element = node._metadata.element_type
        if is_dataclass(element):  # a mapping from free names to sections: test sets
            for name, section in value.items():
                if isinstance(section, Mapping):
                    check_keys(section, OmegaConf.structured(element), f"{full}.{name}.")
        else:
            check_keys(value, node, f"{full}.")


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that does not exist here: the nearest that does, or the family of models that has it."""
    for family, schema in FAMILIES.items():
        if key in (f"model.{entry.name}" for entry in fields(schema)):
            return f"{key} is a key of the {family} family only, and the model here is of another"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{key} is no configuration key" + (f"; did you mean {nearest[0]}?" if nearest else "")


def known_keys(schema: type = Config) -> list[str]:
    """All keys of a schema with their sections, both families' for the model."""

    def walk(kind: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(kind)
        for entry in fields(kind):
            hint = hints[entry.name]
            options = [hint, *get_args(hint)]
            yield prefix + entry.name
            for option in options:
                if isinstance(option, type) and is_dataclass(option) and prefix + entry.name != "data.test":
                    yield from walk(option, f"{prefix}{entry.name}.")

    keys = set(walk(schema, ""))
    if issubclass(schema, Config):
        for family_schema in FAMILIES.values():
            keys |= set(walk(family_schema, "model."))
    return sorted(keys)


def to_yaml(config: Config) -> str:
    """All values as YAML, interpolations resolved; ``parse`` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(to_mapping(config)), resolve=True)


def to_mapping(config: Config) -> dict[str, Any]:
    """All values of a configuration as ``parse`` gives it, as plain mappings, lists, strings and numbers."""
    return asdict(config, dict_factory=lambda pairs: {k: v.name if isinstance(v, Enum) else v for k, v in pairs})


def load(path: Path) -> Config:
    """Reads a saved configuration; keys that it lacks take their defaults.

    Raises:
        UserError: If it is no valid configuration.
    """
    return parse(read_mapping(path))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by their full key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def hyper_parameters(config: Config) -> dict[str, Any]:
    """The keys that runs are compared by, flattened: model, optimizer, batch, tokenizer and seed."""
    flat = flatten(to_mapping(config))
    sections = ("model.", "optim.")
    others = ("seed", "tokenizer.kind", "tokenizer.vocab_size", "trainer.batch_tokens", "trainer.accumulate",
              "trainer.label_smoothing", "trainer.precision")  # fmt: skip
    return {key: value for key, value in flat.items() if key.startswith(sections) or key in others}


def without_effect(config: Config) -> list[str]:
    """A line for each key that differs from its default and that nothing reads, because of another key's value."""
    defaults = parse({"model": {"family": config.model.family}})
    return config_rules.without_effect(flatten(to_mapping(config)), flatten(to_mapping(defaults)))


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that matter for the weights and differ, with both values."""
    before, after = flatten(to_mapping(old)), flatten(to_mapping(new))
    return {
        key: (before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not _is_free(key)
    }


def fingerprint(config: Config) -> str:
    """sha256 of the keys that matter for the weights and are not at their defaults, so that new keys change nothing."""
    values = flatten(to_mapping(config))
    defaults = flatten(to_mapping(Config(model=type(config.model)())))
    mattering = {key: value for key, value in values.items() if not _is_free(key) and defaults.get(key) != value}
    return hashlib.sha256(json.dumps(mattering, sort_keys=True).encode()).hexdigest()


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def configs_folder() -> Path:
    """The folder of the YAML files: inside an installed package, or beside it in a checkout.

    Raises:
        UserError: If the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"the configs folder is missing beside {package}: the installation is incomplete; install again")
