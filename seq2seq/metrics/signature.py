"""Signatures: the settings that make a score reproducible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    """Settings of a score in sacrebleu's notation, such as ``nrefs:1|bs:1000|seed:1|case:mixed|...``.

    Attributes:
        fields: ``name:value``, in order, the number of references first.
    """

    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Returns the signature that a string spells."""
        return cls(tuple(text.split("|")))

    @classmethod
    def of(cls, **settings: object) -> Signature:
        """Returns the signature with these settings."""
        return cls(tuple(f"{name}:{value}" for name, value in settings.items()))

    def __str__(self) -> str:
        return "|".join(self.fields)

    def append(self, **settings: object) -> Signature:
        """Returns the signature with further settings at its end."""
        return Signature(self.fields + Signature.of(**settings).fields)

    def with_resampling(self, **settings: object) -> Signature:
        """Returns the signature with the settings of resampling where sacrebleu has them: behind the first field."""
        return Signature(self.fields[:1] + Signature.of(**settings).fields + self.fields[1:])

    def without(self, *names: str) -> Signature:
        """Returns the signature without these settings."""
        return Signature(tuple(field for field in self.fields if field.partition(":")[0] not in names))


def number_of_references(refs: Sequence[Sequence[str]]) -> str:
    """Returns sacrebleu's ``nrefs``: the number of references per example, ``var`` if it varies."""
    counts = {len(references) for references in refs}
    return str(counts.pop()) if len(counts) == 1 else "var"
