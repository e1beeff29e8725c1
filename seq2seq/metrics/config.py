"""Which scores there are and how they are set."""

from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError

SACREBLEU_METRICS = ("bleu", "bleu_lc", "chrf", "ter")
ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = SACREBLEU_METRICS + ROUGE_METRICS
BASELINES = ("lead", "oracle")
MOST_RESAMPLES = 1_000_000  # hours and gigabytes; p-values get no better
LOWER_IS_BETTER = frozenset({"ter"})

# sacrebleu's names; the last four fetch a SentencePiece model from the network on first use.
BLEU_TOKENIZERS = (
    "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none", "spm", "flores101", "flores200", "spBLEU-1K",
)  # fmt: skip


class RougeSplit(str, Enum):
    """Where ROUGE-Lsum takes a sentence to end."""

    newline = "newline"
    sentences = "sentences"


@dataclass
class MetricsConfig:
    """Which scores are computed, and how.

    Attributes:
        names: Any of METRICS.
        bleu_tokenize: One of BLEU_TOKENIZERS for `bleu`; null chooses by the target language. `none` is for
            text that is tokenized already. `bleu_lc` is always `13a`, which is what papers quote.
        rouge_stemmer: Porter stemming in ROUGE; it is for English, so it applies where the target language
            is English or not stated.
        rouge_split: `newline` is rouge-score's own rule: a sentence a line. `sentences` ends them at end marks
            too, in outputs and references alike (`metrics.sentences` states the rule); it is for summaries of
            several sentences in one line.
        bootstrap: Number of resamples for the 95 % intervals; 0 computes none.
        summary_statistics: Whether final scores tell how long, novel, copied and repetitive the outputs are, and
            the references for comparison; for summaries and the like, whose source is in the same language.
        baselines: Any of BASELINES, scored beside the model in final scores: `lead` is the beginning of the
            source, `oracle` the sentences of the source that match the references best.
        lead_sentences: Sentences of `lead`. Three are usual for news (See et al. 2017, arXiv:1704.04368).
        lead_words: Words of `lead` at most; null is no limit. Subject lines and headlines need one.
    """

    names: list[str] = field(default_factory=lambda: list(METRICS))
    bleu_tokenize: str | None = None
    rouge_stemmer: bool = True
    rouge_split: RougeSplit = RougeSplit.newline
    bootstrap: int = 1000
    summary_statistics: bool = False
    baselines: list[str] = field(default_factory=list)
    lead_sentences: int = 3
    lead_words: int | None = None

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            UserError: An unknown metric, tokenizer or baseline, or a number out of its range.
        """
        for name in self.names:
            if name not in METRICS:
                raise UserError(f"metrics.names: unknown metric {name!r}; choose from {', '.join(METRICS)}")
        if self.bleu_tokenize is not None and self.bleu_tokenize not in BLEU_TOKENIZERS:
            raise UserError(
                f"metrics.bleu_tokenize={self.bleu_tokenize} is unknown: choose null (by target language) or "
                f"one of {', '.join(BLEU_TOKENIZERS)}"
            )
        if self.bootstrap != 0 and not 2 <= self.bootstrap <= MOST_RESAMPLES:
            raise UserError(
                f"metrics.bootstrap={self.bootstrap}: use 0 for no interval, or from 2 to {MOST_RESAMPLES:,} resamples "
                "(1000 is usual)"
            )
        for name in self.baselines:
            if name not in BASELINES:
                raise UserError(f"metrics.baselines: unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
        if self.lead_sentences < 1:
            raise UserError(f"metrics.lead_sentences={self.lead_sentences}: the lead has at least 1 sentence")
        if self.lead_words is not None and self.lead_words < 1:
            raise UserError(f"metrics.lead_words={self.lead_words}: at least 1, or null for no limit")
