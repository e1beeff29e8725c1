"""Train, score and inspect sequence-to-sequence models from scratch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2seq.errors import Interrupted, TrainingError, UserError
    from seq2seq.inference.generator import Generator
    from seq2seq.pipeline.load import load

__version__ = "0.1.0"
__all__ = ["Generator", "Interrupted", "TrainingError", "UserError", "__version__", "load"]

_MODULES = {
    "Generator": "seq2seq.inference.generator",
    "Interrupted": "seq2seq.errors",
    "TrainingError": "seq2seq.errors",
    "UserError": "seq2seq.errors",
    "load": "seq2seq.pipeline.load",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use, so that importing the package does not import torch."""
    if name in _MODULES:
        import importlib

        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
