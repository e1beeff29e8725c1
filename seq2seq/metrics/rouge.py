"""ROUGE-1, 2, L and Lsum by rouge-score (Lin 2004, "ROUGE: a package for automatic evaluation of summaries", W04-1013).

With several references per example, the score is against the best one; the mean over references is a separate score.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from seq2seq import __version__
from seq2seq.metrics.bootstrap import Statistics, ratio
from seq2seq.metrics.config import MetricsConfig, RougeSplit
from seq2seq.metrics.languages import primary_language
from seq2seq.metrics.sentences import split_sentences
from seq2seq.metrics.signature import Signature, number_of_references
from seq2seq.metrics.words import unicode_words

warn_once = cache(logging.getLogger(__name__).warning)  # once per process, not per evaluation

# Above this share of non-Latin letters, rouge-score's [a-z0-9]+ tokens would miss too much of the text.
_NON_LATIN_SHARE = 0.1

Tokenize = Callable[[str], list[str]]  # splits a text into words


def rouge_tokenizer(
    refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> tuple[Tokenize, dict[str, str]]:
    """Selects the tokenizer by the script of the references, and stemming by the language.

    rouge-score's own tokenizer keeps ASCII letters and digits only: text in another script has no tokens and scores 0
    even against itself.

    Returns:
        The tokenizer, and its name and whether it stems, for the signature.
    """
    stem = config.rouge_stemmer and primary_language(target_language) in (None, "en")
    letters = Counter("".join(text for references in refs for text in references))
    letters = Counter({letter: count for letter, count in letters.items() if letter.isalpha()})
    non_latin = sum(count for letter, count in letters.items() if "LATIN" not in unicodedata.name(letter, ""))
    if non_latin > _NON_LATIN_SHARE * letters.total():
        return unicode_words, {"tok": "unicode", "stem": "no"}
    return default_tokenizer(stem=stem), {"tok": "default", "stem": "yes" if stem else "no"}


def rouge_statistics(
    names: Sequence[str],
    hyps: Sequence[str],
    refs: Sequence[Sequence[str]],
    config: MetricsConfig,
    *,
    target_language: str | None,
) -> dict[str, Statistics]:
    """Computes F1 x 100 per example, as rows [F1, 1].

    Args:
        names: Any of ROUGE_METRICS.
        hyps: One text per example.
        refs: At least one text per example.
        config: The metrics section.
        target_language: Language code; selects stemming.

    Returns:
        Statistics by metric, against the best reference of each example by that metric. If any example has several,
        also `<name>_mean`, which first averages over the references of an example. Two empty texts score 0.
    """
    tokenize, settings = rouge_tokenizer(refs, config, target_language=target_language)
    f1 = _f1(names, hyps, refs, tokenize, config.rouge_split)
    package = {"pkg": "rouge-score", "version": version("rouge-score")}
    if tokenize is unicode_words or config.rouge_split is RougeSplit.sentences:
        package["seq2seq"] = __version__  # which defines the rule
    nrefs = number_of_references(refs)
    variants = {"": ("best", [scores.max(axis=0) for scores in f1])}
    if nrefs != "1":
        variants["_mean"] = ("mean", [scores.mean(axis=0) for scores in f1])
    statistics = {}
    for column, name in enumerate(names):
        for suffix, (label, values) in variants.items():
            signature = Signature.of(
                nrefs=nrefs,
                type=name,
                measure="f1",
                refs=label,
                **settings,
                split=config.rouge_split.value,
                **package,
            )
            rows = np.array([[value[column], 1.0] for value in values])
            statistics[name + suffix] = Statistics(signature, rows, ratio)
    return statistics


def _f1(
    names: Sequence[str], hyps: Sequence[str], refs: Sequence[Sequence[str]], tokenize: Tokenize, split: RougeSplit
) -> list[NDArray[np.float64]]:
    """Returns, per example, F1 x 100 against each reference: [number of references, number of metrics]."""
    from rouge_score.rouge_scorer import RougeScorer

    if split is RougeSplit.sentences:
        hyps = ["\n".join(split_sentences(hyp)) for hyp in hyps]
        refs = [["\n".join(split_sentences(text)) for text in references] for references in refs]
    elif "rougeLsum" in names and _hyps_lack_line_breaks(hyps, refs):
        warn_once(
            "ROUGE-Lsum treats each output as one sentence because it has no line breaks, but most references have "
            "several sentences; set metrics.rouge_split=sentences to split both"
        )
    # Cached, so that a text compared with several references is split once.
    tokenizer = SimpleNamespace(tokenize=lru_cache(maxsize=2**10)(tokenize))
    scorer = RougeScorer(list(names), tokenizer=tokenizer)
    f1 = []
    for hyp, references in zip(hyps, refs, strict=True):
        scores = [scorer.score(text, hyp) for text in references]
        f1.append(np.array([[100 * score[name].fmeasure for name in names] for score in scores]))
    return f1


def _hyps_lack_line_breaks(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> bool:
    """Whether hypotheses of several sentences have no line breaks, while most references have several sentences."""
    if any("\n" in hyp for hyp in hyps) or not any(len(split_sentences(hyp)) > 1 for hyp in hyps):
        return False
    num_multi_sentence = sum(len(split_sentences(references[0])) > 1 for references in refs)
    return 2 * num_multi_sentence > len(refs)


@cache
def default_tokenizer(*, stem: bool) -> Tokenize:
    """Returns rouge-score's own tokenizer, which splits lower-cased text into runs of ASCII letters and digits.

    Args:
        stem: Whether to stem words of more than three letters (Porter 1980). The stems are cached in the process, as
            they take most of the time.
    """
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]
    from rouge_score.tokenize import tokenize

    stemmer = SimpleNamespace(stem=lru_cache(maxsize=2**16)(PorterStemmer().stem)) if stem else None
    return partial(tokenize, stemmer=stemmer)
