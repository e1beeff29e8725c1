"""Train, score and inspect sequence-to-sequence models from scratch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2seq.pipeline.load import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """Imports ``load``, and torch with it, only when somebody asks for it."""
    if name == "load":
        from seq2seq.pipeline.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
