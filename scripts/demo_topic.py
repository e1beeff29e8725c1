"""What a kind of report is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One kind of report.

    Its key sentences carry the facts that the summary needs, its side sentences other names and numbers of
    the same sort. A sentence is a list of wordings; `{name}` stands for a fact. `outcomes` are variants: for
    each the fixed facts, and the summary that goes with them. `choices` are facts drawn from lists; facts
    named in neither are drawn by pattern (person, town, percent, ...).
    """

    outcomes: tuple[tuple[dict[str, str], str], ...]
    choices: dict[str, tuple[str, ...]]
    keys: tuple[tuple[str, ...], ...]
    sides: tuple[tuple[str, ...], ...]
