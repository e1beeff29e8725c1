"""Train, score and inspect sequence-to-sequence models from scratch."""

__version__ = "0.1.0"
