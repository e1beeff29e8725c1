"""Keys given on the command line that could have no effect: an error, since the user meant something by them.

Keys that only defaults or files of `configs/` set are never reported.
"""

from collections.abc import Collection

from seq2seq.config import saved
from seq2seq.config.parse import parse, schema_fields
from seq2seq.config.schema import Config
from seq2seq.errors import UserError
from seq2seq.system.plain_yaml import flatten

# What the commands that start from a run's configuration use; everything else was settled when the run was trained.
_OF_TRAINED_RUNS = ("hydra", "run", "checkpoint", "seed", "search", "trainer.device", "trainer.threads",
                    "data.max_source_length", "data.encoding_errors")  # fmt: skip
USED_BY = {
    "evaluate": (*_OF_TRAINED_RUNS, "trainer.precision", "trainer.batch_tokens", "metrics", "data.root", "data.test",
                 "data.target_language", "data.max_target_length"),
    "generate": (*_OF_TRAINED_RUNS, "input", "output", "format", "stream", "attention", "alignments",
                 "data.train.source_field"),
}  # fmt: skip


def require_used_by(command: str, given: Collection[str]) -> None:
    """Raises a UserError for the first given key that a command does not use."""
    for key in given:
        if not saved.is_in(key, USED_BY[command]):
            used = ", ".join(each for each in USED_BY[command] if each != "hydra")
            raise UserError(
                f"{key} has no effect on `seq2seq {command}`: leave it out, or train a run with it. Everything comes "
                f"from the run except {used}"
            )


def require_effect(config: Config, given: Collection[str], *, in_sweep: bool = False) -> None:
    """Raises a UserError for the first given key that is unused because of another key's value.

    Args:
        config: The configuration.
        given: Keys given on the command line.
        in_sweep: Whether this is a job of a sweep: a key may be unused in one job if the command line sets the key that
            it depends on, which may differ between the jobs.
    """
    for key, (condition, message) in unused_keys(config).items():
        section = condition.partition(".")[0]
        if key in given and not (in_sweep and {condition, section} & set(given)):
            raise UserError(message)


def unused_keys(config: Config) -> dict[str, tuple[str, str]]:
    """Returns the keys that differ from their default but are ignored because of another key's value.

    A field with the metadata ``{"used_if": (other key, values)}`` is used only if the other key has, or contains, one
    of these values.

    Returns:
        For each key, the other key and a message.
    """
    values = flatten(saved.to_mapping(config))
    defaults = flatten(saved.to_mapping(parse({"model": {"family": config.model.family}})))
    messages = {}
    for key, field in schema_fields().items():
        if key not in values or values[key] == defaults[key] or "used_if" not in field.metadata:
            continue
        condition, wanted = field.metadata["used_if"]
        found = values.get(condition)
        if not set(found if isinstance(found, list) else [found]) & set(wanted):
            needed = " or ".join(map(override_value, wanted))
            because = (
                f"{condition}={override_value(found)}" if condition in values else f"this model has no {condition}"
            )
            value = override_value(values[key])
            message = f"{key}={value} would have no effect because {because}; it needs {condition}={needed}"
            messages[key] = (condition, message)
    return messages


def override_value(value: object) -> str:
    """Formats a value as in an override on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(override_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
