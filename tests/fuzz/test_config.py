"""Whatever is configured: a configuration that comes back from its file, or one message."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seq2seq.config import saved
from seq2seq.config.commands import EvaluateConfig, GenerateConfig
from seq2seq.config.parse import parse, schema_fields
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.system.plain_yaml import flatten, read_mapping

COST = 2  # parsing and reading back takes some 30 ms

KEYS = sorted(schema_fields(GenerateConfig))
NAMES = sorted(
    {part for key in KEYS for part in key.split(".")} | {"_target_", "hydra", "defaults", "test", "../x", ""}
)
WORDS = ["auto", "cpu", "fp16", "gru", "transformer", "word", "bpe", "cosine", "plateau", "all", "decoder", "learned",
         "valid/bleu", "valid/loss", "bleu", "lead", "strict", "best", "7", "1e3", "1e-3", "null", "true", "???",
         "${seed}", "${oc.env:HOME}", "${", "$", "\\", "../../x", "/etc/passwd", ".", "a\0b", "\udcff", "é世🙂", " ",
         "a: b", "#", "- a"]  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-2, 600), st.integers(), st.sampled_from([2**31 - 1, 2**31, 2**63, 10**30]), st.floats(),
    st.floats(0, 2),
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=8))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(NAMES), SCALARS, max_size=3))
FLAT = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
TREE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configurations") / "config.yaml"


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            inner = node.setdefault(section, {})
            node = inner if isinstance(inner, dict) else {}
        node[last] = value
    return tree


def check(values: dict[str, Any], path: Path, schema: type[Config] = Config) -> None:
    """Parses, and if that goes well compares with what comes back from the file."""
    try:
        config = parse(values, schema)
    except UserError:
        return
    flat = flatten(saved.to_mapping(config))
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in flat.values())
    path.write_text(saved.to_yaml(config), encoding="utf-8")
    if not any(isinstance(value, str) and "${" in value for value in flat.values()):  # which no saved one may have
        assert parse(read_mapping(path), schema) == config


@given(FLAT, st.sampled_from(["gru", "transformer"]), st.sampled_from([Config, EvaluateConfig, GenerateConfig]))
@example({"data.test": {"../../x": None}}, "gru", Config)
@example({"search.seed": -1}, "gru", Config)
@example({"trainer.timeout_minutes": math.nan}, "gru", Config)
@example({"trainer.max_minutes": math.inf}, "gru", Config)
@example({"name": "\udcff"}, "gru", Config)
def test_any_values_of_known_keys(path: Path, flat: dict[str, Any], family: str, schema: type[Config]) -> None:
    check(nested({"model.family": family, **flat}), path, schema)


@given(TREE)
@example({"model": "???"})
@example({"model": {"family": ["gru"]}})
@example({"optim": {"betas": {"a": 1}}})
def test_any_tree(path: Path, tree: Any) -> None:
    check(tree if isinstance(tree, dict) else {"data": tree}, path)


TOKENS = st.sampled_from(
    [*NAMES, *WORDS, ": ", ":", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a",
     "!!python/object/apply:", "os.system", "!!python/name:os.system", "!!binary ", "!!set ", "? ", "<<: ",
     "|\n", ">\n", "'", '"', "---\n",
     "%YAML 1.1\n", "\t", "\x85", "\ufeff", "2001-01-01", "0x1", "1_0", "1:30", ".nan", ".inf", "~"]
)  # fmt: skip


@given(st.one_of(st.lists(TOKENS, max_size=25).map("".join), st.text(max_size=40)), st.binary(max_size=3))
@example("a: &a [*a]", b"")
@example("[" * 5000, b"")
@example("name: !!python/object/apply:pathlib.Path [a]", b"")
def test_any_file(path: Path, text: str, garbage: bytes) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass") + garbage)
    with suppress(UserError):
        saved.load(path)


@given(FLAT)
def test_a_saved_file_with_other_values(path: Path, flat: dict[str, Any]) -> None:
    values = saved.to_mapping(parse({}))
    for key, value in flat.items():
        put(values, key, value)
    try:
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(values)), encoding="utf-8")
    except Exception:  # what OmegaConf cannot write is in no file
        return
    with suppress(UserError):
        saved.load(path)


def put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        values = inner if isinstance(inner, dict) else values
    values[last] = value
