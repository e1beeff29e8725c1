"""Checks the overrides of a benchmark: they may only change keys that affect all contenders."""

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from seq2seq.config.compose import configs_folder
from seq2seq.system.plain_yaml import flatten


def check_overrides(overrides: list[str], fixed: Mapping[str, str], *, allowed: Collection[str] | None = None) -> None:
    """Exits at the first override that would change one contender but not the others.

    Args:
        overrides: In Hydra's syntax.
        fixed: Keys that overrides must not change, and how they are set for all contenders.
        allowed: The only keys that may be changed; None allows all except `fixed`.
    """
    for override in overrides:
        keys = override_keys(override)
        for key in keys:
            for name, how in fixed.items():
                if name == key or name.startswith(f"{key}."):
                    sys.exit(f"{override}: {name} is the same for all contenders: {how}")
        if allowed is not None and not (keys and set(keys) <= set(allowed)):
            sys.exit(f"{override}: only {' and '.join(allowed)} can be changed here")


def override_keys(override: str) -> list[str]:
    """Returns the keys that an override sets, adds or deletes; for an option of a group, those that its file sets.

    An experiment counts as setting none: the fixed settings take precedence over it.
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
        return [f"{key}.{inner}" for option in options for inner in _option_keys(key, str(option))]
    return [key]


def _option_keys(group: str, option: str) -> Iterator[str]:
    """Yields the keys that an option's file sets, including those of its base files."""
    from omegaconf import OmegaConf

    path = configs_folder() / group / f"{option}.yaml"
    if not path.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
    for base in content.pop("defaults", []):
        if isinstance(base, str):
            yield from _option_keys(group, base)
    yield from flatten(content)
