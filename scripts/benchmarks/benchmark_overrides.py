"""Which keys overrides of a benchmark may change: those that all contenders follow."""

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from seq2seq.config.parse import configs_folder
from seq2seq.config.rules import flatten


def refuse(overrides: list[str], settled: Mapping[str, str], *, allowed: Collection[str] | None = None) -> None:
    """Ends the program at the first override that changes one contender and leaves the others as they are.

    Args:
        overrides: As Hydra reads them.
        settled: Keys that are not for overrides, and how they are set for all contenders.
        allowed: The only keys that may be changed; None allows all that are not `settled`.
    """
    for override in overrides:
        keys = keys_of(override)
        for key in keys:
            for name, how in settled.items():
                if name == key or name.startswith(f"{key}."):
                    sys.exit(f"{override}: {name} is the same for all contenders: {how}")
        if allowed is not None and not (keys and set(keys) <= set(allowed)):
            sys.exit(f"{override}: only {' and '.join(allowed)} can be changed here")


def keys_of(override: str) -> list[str]:
    """The keys that an override sets, adds or deletes; for a group's option those that its file sets.

    An experiment sets none: what is settled for all contenders prevails over it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, ValueError):
        sys.exit(f"cannot read the override {override!r}: it is KEY=VALUE, as for seq2seq train")
    key, value = parsed.key_or_group, None if parsed.is_delete() else parsed.value()
    if isinstance(value, Mapping) and value:
        return [f"{key}.{inner}" for inner in flatten({str(name): inner for name, inner in value.items()})]
    if (configs_folder() / key).is_dir() and value is not None:
        options = value if isinstance(value, list) else [value]
        return [f"{key}.{inner}" for option in options for inner in _keys_of_option(key, str(option))]
    return [key]


def _keys_of_option(group: str, option: str) -> Iterator[str]:
    """What a file of a group sets, with those that it builds on."""
    from omegaconf import OmegaConf

    path = configs_folder() / group / f"{option}.yaml"
    if not path.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
    for base in content.pop("defaults", []):
        if isinstance(base, str):
            yield from _keys_of_option(group, base)
    yield from flatten(content)
