"""Train, score and inspect sequence-to-sequence models from scratch."""

import importlib
from typing import TYPE_CHECKING

from seq2seq.errors import Interrupted, TrainingError, UserError

if TYPE_CHECKING:
    from seq2seq.inference.generator import Generator
    from seq2seq.pipeline.load import load

__version__ = "0.1.0"
__all__ = ["Generator", "Interrupted", "TrainingError", "UserError", "__version__", "load"]

_WITH_TORCH = {"Generator": "seq2seq.inference.generator", "load": "seq2seq.pipeline.load"}


def __getattr__(name: str) -> object:
    """Imports what needs torch only when somebody asks for it."""
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
