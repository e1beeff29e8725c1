"""Scores of generated text against references, each with a signature that makes it reproducible."""

from seq2seq.metrics.bootstrap import Score, Statistics
from seq2seq.metrics.config import LOWER_IS_BETTER, MAX_RESAMPLES, METRICS, ROUGE_METRICS, MetricsConfig, RougeSplit
from seq2seq.metrics.scoring import score, score_baselines, score_summaries, statistics
from seq2seq.metrics.signature import Signature

__all__ = [
    "LOWER_IS_BETTER",
    "MAX_RESAMPLES",
    "METRICS",
    "ROUGE_METRICS",
    "MetricsConfig",
    "RougeSplit",
    "Score",
    "Signature",
    "Statistics",
    "score",
    "score_baselines",
    "score_summaries",
    "statistics",
]
