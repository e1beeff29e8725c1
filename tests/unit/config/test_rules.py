"""Values that make no sense for any key, number by number; keys that are set without effect."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import OmegaConf

from seq2seq.config import given
from seq2seq.config.compose import compose, configs_folder
from seq2seq.config.parse import parse, schema_fields
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.models.families import FAMILIES

# Everything else is refused. Zero switches off, or is a first number to count from.
ZERO = {
    "seed", "search.seed", "search.min_length", "search.top_k", "search.no_repeat_ngram", "search.length_penalty",
    "search.coverage_penalty", "metrics.bootstrap", "optim.warmup_steps", "optim.weight_decay", "optim.min_lr_ratio",
    "optim.clip_norm", "optim.ema_decay", "trainer.label_smoothing", "trainer.coverage_loss_weight",
    "trainer.coverage_loss_start", "trainer.eval_examples", "trainer.samples", "trainer.attention_images",
    "tokenizer.sampling_alpha", "model.dropout", "model.attention_dropout", "model.activation_dropout",
}  # fmt: skip
MINUS_ONE = {"tokenizer.sampling_nbest"}
# Odd, but a meaning: no clipping, no limit on minutes, draws that are all but uniform, ...
HUGE = {
    "data.max_length_ratio", "tokenizer.sampling_alpha", "optim.lr", "optim.eps", "optim.weight_decay",
    "optim.clip_norm", "trainer.max_epochs", "trainer.max_minutes", "trainer.stop_after_minutes",
    "trainer.coverage_loss_weight", "search.coverage_penalty", "search.max_length_ratio", "search.temperature",
}  # fmt: skip


def numbers(schema: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every key of a number, and whether it may be null."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        options = get_args(hints[entry.name]) or (hints[entry.name],)
        if int in options or float in options:
            if list not in options and not hasattr(hints[entry.name], "__origin__"):
                yield prefix + entry.name, NoneType in options
        elif isinstance(options[0], type) and is_dataclass(options[0]):
            yield from numbers(options[0], f"{prefix}{entry.name}.")


CASES = [("transformer", *case) for case in numbers(Config)] + [
    (family, *case) for family, schema in FAMILIES.items() for case in numbers(schema, "model.")
]


def with_value(family: str, key: str, value: object) -> dict[str, Any]:
    tree: dict[str, Any] = {"model": {"family": family}}
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = value
    return tree


def test_the_table_is_of_all_keys() -> None:
    keys = {key for _, key, _ in CASES}
    assert len(keys) > 60
    assert keys >= ZERO | MINUS_ONE | HUGE


@pytest.mark.parametrize(("family", "key", "nullable"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_number_that_makes_no_sense_is_refused_by_name(family: str, key: str, nullable: bool) -> None:
    allowed = {-1: key in MINUS_ONE, 0: key in ZERO, None: nullable, 10**30: key in HUGE}
    for value in (-1, 0, 10**30, None, math.nan, math.inf, "abc", [1]):
        known = value if isinstance(value, int | None) else "never"
        if allowed.get(known, False):
            if key != "trainer.max_steps":  # null there needs another limit
                parse(with_value(family, key, value))
            continue
        with pytest.raises(UserError) as caught:
            parse(with_value(family, key, value))
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../../x"}, r"name=\.\./\.\./x: must be a folder below output_root"),
        ({"name": "/tmp/x"}, "name=/tmp/x: must be a folder below"),
        ({"name": ".cache"}, "must be a folder below"),
        ({"output_root": ""}, "output_root= is empty"),
        ({"data": {"train": {"source": ""}}}, r"data\.train\.source= is empty"),
        ({"data": {"root": "a\0b"}}, r"data\.root='a\\x00b': holds a NUL"),
        ({"data": {"root": "a\udcffb"}}, r"data\.root='a\\udcffb': is not UTF-8"),
        (
            {"data": {"test": {"../../x": {"path": "a.tsv"}}}},
            r"data\.test\.\.\./\.\./x: a test set's name is also a file name",
        ),
        ({"data": {"test": {"": {"path": "a.tsv"}}}}, r"data\.test\.: a test set's name is also a file name"),
        ({"data": {"test": {"x" * 201: {"path": "a.tsv"}}}}, "at most 200 bytes"),
        ({"data": {"test": ["a"]}}, r"data\.test=\['a'\]: is a section"),
        ({"trainer": 3}, "trainer=3: is a section"),
        ({"model": "gru"}, "model=gru: is a section"),
        ({"model": {"family": ["gru"]}}, r"model\.family=\['gru'\]: no such model"),
        ({"metrics": {"names": "bleu"}}, r"metrics\.names=bleu: must be a list"),
        ({"optim": None}, r"optim: .*not Optional"),
        ({"optim": {"betas": [0.9]}}, r"optim\.betas=\[0\.9\]"),
        ({"optim": {"betas": {"a": 1}}}, r"optim\.betas=\{'a': 1\}: must be a list"),
        ({"search": {"length_penalty": 11.0}}, r"search\.length_penalty=11\.0"),
        ({"trainer": {"threads": 2000}}, r"trainer\.threads=2000: must be from 1 to 1024"),
        ({"trainer": {"max_steps": 2**31}}, r"trainer\.max_steps=2147483648: whole numbers are at most 2,147,483,647"),
        ({"model": {"d_model": 100_000}}, r"model\.d_model=100000 must be from 1 to 65,536"),
    ],
)
def test_values_beyond_any_use_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(values)


def test_what_32_bits_hold_is_not_beyond_use() -> None:
    assert parse({"trainer": {"max_steps": 2**31 - 1}}).trainer.max_steps == 2**31 - 1


def unused_keys(values: dict[str, Any]) -> list[str]:
    return [message for _, message in given.unused_keys(parse(values)).values()]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"trainer": {"coverage_loss_weight": 0.5}},
            "trainer.coverage_loss_weight=0.5 would have no effect because this model has no model.coverage; it needs "
            "model.coverage=true",
        ),
        (
            {"model": {"copy_attention": "mean"}},
            "model.copy_attention=mean would have no effect because model.copy=false; it needs model.copy=true",
        ),
        (
            {"search": {"top_k": 5}},
            "search.top_k=5 would have no effect because search.sampling=false; it needs search.sampling=true",
        ),
        (
            {"metrics": {"names": ["chrf"], "bleu_tokenize": "none"}},
            "metrics.bleu_tokenize=none would have no effect because metrics.names=[chrf]; it needs metrics.names=bleu",
        ),
    ],
)
def test_a_key_without_effect_is_named_with_the_reason(values: dict[str, Any], line: str) -> None:
    assert unused_keys(values) == [line]


# For each key that is not always read: another value of it, and values of the other key with which it is read or not.
CONDITIONS = [
    ("tokenizer.byte_fallback=false", "tokenizer.kind", ["unigram", "bpe", "char"], ["word"]),
    ("tokenizer.normalization=nfkc", "tokenizer.kind", ["unigram", "bpe", "char"], ["word"]),
    ("tokenizer.character_coverage=0.99", "tokenizer.kind", ["unigram", "bpe", "char"], ["word"]),
    ("tokenizer.sampling_nbest=5", "tokenizer.kind", ["unigram"], ["bpe", "char", "word"]),
    ("tokenizer.word_tokenizer=whitespace", "tokenizer.kind", ["word"], ["unigram", "bpe", "char"]),
    ("tokenizer.lowercase=true", "tokenizer.kind", ["word"], ["unigram", "bpe", "char"]),
    ("tokenizer.min_frequency=3", "tokenizer.kind", ["word"], ["unigram", "bpe", "char"]),
    ("model.copy_attention=mean", "model.copy", ["true"], ["false"]),
    ("model.max_positions=2000", "model.positions", ["learned"], ["sinusoidal"]),
    ("model.attention_size=99", "model.attention", ["additive"], ["general"]),
    ("optim.horizon_steps=50", "optim.schedule", ["cosine", "linear"], ["plateau", "inverse_sqrt", "constant"]),
    ("optim.plateau_factor=0.3", "optim.schedule", ["plateau"], ["cosine", "linear", "inverse_sqrt", "constant"]),
    ("optim.plateau_patience=9", "optim.schedule", ["plateau"], ["cosine", "linear", "inverse_sqrt", "constant"]),
    ("trainer.coverage_loss_weight=0.3", "model.coverage", ["true"], ["false"]),
    ("trainer.coverage_loss_start=7", "model.coverage", ["true"], ["false"]),
    ("trainer.average_checkpoints=3", "trainer.average", ["last", "best"], ["none"]),
    ("search.beam_size=3", "search.sampling", ["false"], ["true"]),
    ("search.length_penalty=0.3", "search.length_normalization", ["wu", "average"], ["none"]),
    ("search.temperature=0.3", "search.sampling", ["true"], ["false"]),
    ("search.top_k=3", "search.sampling", ["true"], ["false"]),
    ("search.top_p=0.3", "search.sampling", ["true"], ["false"]),
    ("search.seed=3", "search.sampling", ["true"], ["false"]),
    ("metrics.bleu_tokenize=char", "metrics.names", ["[bleu]", "[chrf,bleu]"], ["[chrf]"]),
    ("metrics.rouge_stemmer=false", "metrics.names", ["[rouge1]", "[rouge2]", "[rougeL]", "[rougeLsum]"], ["[bleu]"]),
    ("metrics.rouge_split=sentences", "metrics.names", ["[rougeLsum]"], ["[rougeL]"]),
    ("metrics.lead_sentences=2", "metrics.baselines", ["[lead]"], ["[oracle]", "[]"]),
    ("metrics.lead_words=9", "metrics.baselines", ["[lead]"], ["[oracle]", "[]"]),
]


@pytest.mark.parametrize(("setting", "condition", "read", "unread"), CONDITIONS, ids=[case[0] for case in CONDITIONS])
def test_a_key_is_named_where_it_is_not_read_and_only_there(
    setting: str, condition: str, read: list[str], unread: list[str]
) -> None:
    key = setting.partition("=")[0]
    gru = key in ("model.attention_size", "trainer.coverage_loss_weight", "trainer.coverage_loss_start")
    model = ["model.family=gru", "model.d_model=512"] if gru else []
    for value in [*read, *unread]:
        settings = OmegaConf.from_dotlist([*model, f"{condition}={value}", setting])
        assert list(given.unused_keys(parse(settings))) == ([] if value in read else [key]), value


def test_keys_that_are_read_are_not_named() -> None:
    assert unused_keys({}) == []
    assert unused_keys({"search": {"sampling": True, "top_k": 5}}) == []
    assert unused_keys({"model": {"family": "gru", "coverage": True}, "trainer": {"coverage_loss_weight": 0.5}}) == []


def test_every_rule_is_about_keys_that_there_are() -> None:
    keys = set(schema_fields())
    rules = {key: each.metadata["used_if"] for key, each in schema_fields().items() if "used_if" in each.metadata}
    for key, (condition, _) in rules.items():
        assert {key, condition} <= keys
    assert sorted(case[0].partition("=")[0] for case in CONDITIONS) == sorted(rules)


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (configs_folder() / "experiment").iterdir()))
def test_no_experiment_sets_a_key_without_effect(experiment: str) -> None:
    config = parse(compose("train", ["name=test", f"experiment={experiment}"]))
    assert given.unused_keys(config) == {}
