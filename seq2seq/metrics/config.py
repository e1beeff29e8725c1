"""The available metrics and their configuration."""

from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError

SACREBLEU_METRICS = ("bleu", "bleu_lc", "chrf", "ter")
ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = SACREBLEU_METRICS + ROUGE_METRICS
BASELINES = ("lead", "oracle")
MAX_RESAMPLES = 1_000_000  # takes hours and gigabytes; more does not improve p-values
LOWER_IS_BETTER = frozenset({"ter"})

# sacrebleu's names; the last four download a SentencePiece model on first use.
BLEU_TOKENIZERS = (
    "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none", "spm", "flores101", "flores200", "spBLEU-1K",
)  # fmt: skip


class RougeSplit(str, Enum):
    """How ROUGE-Lsum splits texts into sentences."""

    newline = "newline"
    sentences = "sentences"


_IF_LEAD = {"used_if": ("metrics.baselines", ("lead",))}


@dataclass
class MetricsConfig:
    """Metrics to compute, and their settings.

    Attributes:
        names: Any of METRICS.
        bleu_tokenize: One of BLEU_TOKENIZERS for `bleu`; null selects one by the target language. `none` is for
            text that is already tokenized. `bleu_lc` always uses `13a`, as papers do.
        rouge_stemmer: Whether ROUGE applies Porter stemming; used only if the target language is English or
            not stated.
        rouge_split: `newline` is rouge-score's own rule: one sentence per line. `sentences` also splits at
            end-of-sentence punctuation, in outputs and references (see `metrics.sentences`); for summaries with
            several sentences on one line.
        bootstrap: Number of resamples for the 95 % intervals; 0 disables them.
        summary_statistics: Whether final scores include length, novelty, copying and repetition of the outputs, and
            of the references for comparison; for summarization, where source and target share a language.
        baselines: Any of BASELINES to score beside the model in final scores: `lead` is the beginning of the
            source, `oracle` the source sentences that match the references best.
        lead_sentences: Number of sentences in `lead`. Three are usual for news (See et al. 2017, arXiv:1704.04368).
        lead_words: Maximum number of words in `lead`; null means no limit. Subject lines and headlines need one.
    """

    names: list[str] = field(default_factory=lambda: list(METRICS))
    bleu_tokenize: str | None = field(default=None, metadata={"used_if": ("metrics.names", ("bleu",))})
    rouge_stemmer: bool = field(default=True, metadata={"used_if": ("metrics.names", ROUGE_METRICS)})
    rouge_split: RougeSplit = field(default=RougeSplit.newline, metadata={"used_if": ("metrics.names", ("rougeLsum",))})
    bootstrap: int = 1000
    summary_statistics: bool = False
    baselines: list[str] = field(default_factory=list)
    lead_sentences: int = field(default=3, metadata=_IF_LEAD)
    lead_words: int | None = field(default=None, metadata=_IF_LEAD)

    def __post_init__(self) -> None:
        """Validates names and ranges.

        Raises:
            UserError: An unknown metric, tokenizer or baseline, or a number out of its range.
        """
        for key, kind, known in (("names", "metric", METRICS), ("baselines", "baseline", BASELINES)):
            for name in getattr(self, key):
                if name not in known:
                    raise UserError(f"metrics.{key}: unknown {kind} {name!r}; choose from {', '.join(known)}")
        if self.bleu_tokenize is not None and self.bleu_tokenize not in BLEU_TOKENIZERS:
            raise UserError(
                f"metrics.bleu_tokenize={self.bleu_tokenize} is unknown: choose null (by target language) or "
                f"one of {', '.join(BLEU_TOKENIZERS)}"
            )
        if self.bootstrap != 0 and not 2 <= self.bootstrap <= MAX_RESAMPLES:
            raise UserError(
                f"metrics.bootstrap={self.bootstrap}: must be 0 (no intervals) or 2 to {MAX_RESAMPLES:,} resamples "
                "(1000 is usual)"
            )
        if self.lead_sentences < 1:
            raise UserError(f"metrics.lead_sentences={self.lead_sentences}: must be at least 1")
        if self.lead_words is not None and self.lead_words < 1:
            raise UserError(f"metrics.lead_words={self.lead_words}: must be at least 1, or null for no limit")
