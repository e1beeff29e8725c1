"""Rules for the values of any key, and the search for keys without effect. Keys are full keys, values plain."""

from collections.abc import Mapping
from typing import Any

from seq2seq.errors import UserError
from seq2seq.system.plain_yaml import flatten as flatten

MAX_INTEGER = 2**31 - 1  # limit of any count, size or number of steps; seeds may be larger
_SEEDS = ("seed", "search.seed")  # checked by their own sections

# Each key is used only if another key has one of these values: {key: (other key, values)}.
USED_ONLY_IF: dict[str, tuple[str, tuple[object, ...]]] = {
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


def check_values(values: Mapping[str, Any]) -> None:
    """Checks rules that hold for every key: no empty text, no text that a path cannot hold, no huge integer.

    Raises:
        UserError: If a value breaks a rule; names the key and the value.
    """
    for key, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                _check_text(key, item)
            elif isinstance(item, int) and abs(item) > MAX_INTEGER and key not in _SEEDS:
                raise UserError(f"{key}={item}: whole numbers are at most {MAX_INTEGER:,}")


def _check_text(key: str, text: str) -> None:
    if not text:
        raise UserError(f"{key}= is empty: give it a value, or leave it out")
    if "\0" in text:
        raise UserError(f"{key}={text!r}: holds a NUL character, which no name or path can contain")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{key}={text!r}: is not UTF-8; rename the file or folder that it names") from None


def unused_keys(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Returns one message per key that was set but is ignored because of the value of another key.

    Args:
        values: The values of all keys.
        defaults: Their defaults; a value that equals its default counts as not set.
    """
    messages = []
    for key, (condition, wanted) in USED_ONLY_IF.items():
        if key not in values or values[key] == defaults.get(key):
            continue
        found = values.get(condition)
        if not set(found if isinstance(found, list) else [found]) & set(wanted):
            needed = " or ".join(_override_value(value) for value in wanted)
            because = (
                f"{condition}={_override_value(found)}" if condition in values else f"this model has no {condition}"
            )
            value = _override_value(values[key])
            messages.append(f"{key}={value} is ignored because {because}; it needs {condition}={needed}")
    return messages


def _override_value(value: object) -> str:
    """Formats a value as in an override on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_override_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
