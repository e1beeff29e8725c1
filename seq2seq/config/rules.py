"""Rules for values whatever their key, and keys that are set without effect. Keys are full ones, values plain."""

from collections.abc import Mapping
from typing import Any

from seq2seq.errors import UserError

LARGEST = 2**31 - 1  # of any count, size or number of steps: what 32 bits hold, more than any run needs
_SEEDS = ("seed", "search.seed")  # have a rule of their own

# A key is read only where another one has one of these values.
READ_WHERE: dict[str, tuple[str, tuple[object, ...]]] = {
    "tokenizer.byte_fallback": ("tokenizer.kind", ("unigram", "bpe", "char")),
    "tokenizer.normalization": ("tokenizer.kind", ("unigram", "bpe", "char")),
    "tokenizer.character_coverage": ("tokenizer.kind", ("unigram", "bpe", "char")),
    "tokenizer.sampling_nbest": ("tokenizer.kind", ("unigram",)),
    "tokenizer.word_tokenizer": ("tokenizer.kind", ("word",)),
    "tokenizer.lowercase": ("tokenizer.kind", ("word",)),
    "tokenizer.min_frequency": ("tokenizer.kind", ("word",)),
    "model.copy_attention": ("model.copy", (True,)),
    "model.max_positions": ("model.positions", ("learned",)),
    "model.attention_size": ("model.attention", ("additive",)),
    "optim.horizon_steps": ("optim.schedule", ("cosine", "linear")),
    "optim.plateau_factor": ("optim.schedule", ("plateau",)),
    "optim.plateau_patience": ("optim.schedule", ("plateau",)),
    "trainer.coverage_loss_weight": ("model.coverage", (True,)),
    "trainer.coverage_loss_start": ("model.coverage", (True,)),
    "trainer.average_checkpoints": ("trainer.average", ("last", "best")),
    "search.beam_size": ("search.sampling", (False,)),
    "search.length_penalty": ("search.length_normalization", ("wu", "average")),
    "search.temperature": ("search.sampling", (True,)),
    "search.top_k": ("search.sampling", (True,)),
    "search.top_p": ("search.sampling", (True,)),
    "search.seed": ("search.sampling", (True,)),
    "metrics.bleu_tokenize": ("metrics.names", ("bleu",)),
    "metrics.rouge_stemmer": ("metrics.names", ("rouge1", "rouge2", "rougeL", "rougeLsum")),
    "metrics.rouge_split": ("metrics.names", ("rougeLsum",)),
    "metrics.lead_sentences": ("metrics.baselines", ("lead",)),
    "metrics.lead_words": ("metrics.baselines", ("lead",)),
}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by their full key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_values(values: Mapping[str, Any]) -> None:
    """Refuses what no key can mean: empty text, text that no file can hold, numbers beyond any use.

    Raises:
        UserError: Naming the key and the value.
    """
    for key, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                _check_text(key, item)
            elif isinstance(item, int) and abs(item) > LARGEST and key not in _SEEDS:
                raise UserError(f"{key}={item}: whole numbers are at most {LARGEST:,}")


def _check_text(key: str, text: str) -> None:
    if not text:
        raise UserError(f"{key}= is empty: give it a value, or leave it out")
    if "\0" in text:
        raise UserError(f"{key}={text!r}: holds a NUL character, which is part of no name or path")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{key}={text!r}: is not UTF-8; rename what it names") from None


def unused_keys(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """A line for each key that was set but that nothing reads, because of the value of another one.

    Args:
        values: Of all keys.
        defaults: Of the same keys; a value that equals its default was not set.
    """
    lines = []
    for key, (condition, wanted) in READ_WHERE.items():
        if key not in values or values[key] == defaults.get(key):
            continue
        found = values.get(condition)
        if not set(found if isinstance(found, list) else [found]) & set(wanted):
            needed = " or ".join(_as_typed(value) for value in wanted)
            because = f"{condition}={_as_typed(found)}" if condition in values else f"this model has no {condition}"
            value = _as_typed(values[key])
            lines.append(f"{key}={value} is ignored because {because}; it goes with {condition}={needed}")
    return lines


def _as_typed(value: object) -> str:
    """A value as a user types it."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
