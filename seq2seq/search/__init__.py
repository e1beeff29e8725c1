"""Search: from a source and trained models to the best target sequences (ids in, ids out)."""

from seq2seq.search.config import LengthNormalization, SearchConfig, SearchPrecision
from seq2seq.search.decoder import Decoder, ModelDecoder, Prediction
from seq2seq.search.hypothesis import Hypothesis
from seq2seq.search.search import search

__all__ = [
    "Decoder",
    "Hypothesis",
    "LengthNormalization",
    "ModelDecoder",
    "Prediction",
    "SearchConfig",
    "SearchPrecision",
    "search",
]
