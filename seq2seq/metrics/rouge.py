"""ROUGE-1, 2, L and Lsum by rouge-score (Lin 2004, "ROUGE: a package for automatic evaluation of summaries", W04-1013).

Where an example has several references, the best one counts; the mean over references is a score of its own.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seq2seq import __version__
from seq2seq.metrics.bootstrap import Statistics, ratio
from seq2seq.metrics.config import MetricsConfig, RougeSplit
from seq2seq.metrics.languages import primary_language
from seq2seq.metrics.sentences import split_sentences
from seq2seq.metrics.words import UnicodeTokenizer

logger = logging.getLogger(__name__)

# Above this share of letters outside the Latin script, rouge-score's [a-z0-9]+ tokens would miss the text.
_NON_LATIN_SHARE = 0.1


class Tokenizer(Protocol):
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """Splits a text."""


@dataclass(frozen=True)
class RougeSettings:
    """How texts become what ROUGE counts.

    Attributes:
        tokenizer: Splits a text into words.
        label: The tokenizer and stemming in a signature.
        split: Where a sentence ends.
    """

    tokenizer: Tokenizer
    label: str
    split: RougeSplit


def rouge_settings(
    refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> RougeSettings:
    """Chooses the tokenizer by the script of the references, and stemming by the language.

    rouge-score's own one keeps ASCII letters and digits only: text in another script has no tokens then and
    scores 0 even against itself.
    """
    stem = config.rouge_stemmer and primary_language(target_language) in (None, "en")
    letters = Counter("".join(text for references in refs for text in references))
    letters = Counter({letter: count for letter, count in letters.items() if letter.isalpha()})
    other = sum(count for letter, count in letters.items() if "LATIN" not in unicodedata.name(letter, ""))
    if other > _NON_LATIN_SHARE * letters.total():
        return RougeSettings(UnicodeTokenizer(), "tok:unicode|stem:no", config.rouge_split)
    return RougeSettings(DefaultTokenizer(stem=stem), f"tok:default|stem:{'yes' if stem else 'no'}", config.rouge_split)


def rouge_statistics(
    names: Sequence[str], hyps: Sequence[str], refs: Sequence[Sequence[str]], settings: RougeSettings
) -> dict[str, Statistics]:
    """Computes F1 x 100 of each example: rows [F1, 1].

    Args:
        names: Any of ROUGE_METRICS.
        hyps: One text an example.
        refs: At least one text an example.
        settings: Tokenizer and sentence split.

    Returns:
        By metric, against the best reference of each example (the best by that metric). Where any example has
        several, `<name>_mean` follows, which averages over the references of an example first. Two empty texts
        score 0.
    """
    f1 = _f1(names, hyps, refs, settings)
    package = f"pkg:rouge-score|version:{version('rouge-score')}"
    if isinstance(settings.tokenizer, UnicodeTokenizer) or settings.split is RougeSplit.sentences:
        package += f"|seq2seq:{__version__}"  # whose rule it is
    widths = {len(references) for references in refs}
    nrefs = str(widths.pop()) if len(widths) == 1 else "var"
    kinds = {"": ("best", [scores.max(axis=0) for scores in f1])}
    if nrefs != "1":
        kinds["_mean"] = ("mean", [scores.mean(axis=0) for scores in f1])
    statistics = {}
    for column, name in enumerate(names):
        for suffix, (label, values) in kinds.items():
            signature = (
                f"nrefs:{nrefs}|type:{name}|measure:f1|refs:{label}|{settings.label}|split:{settings.split.value}"
                f"|{package}"
            )
            rows = np.array([[value[column], 1.0] for value in values])
            statistics[name + suffix] = Statistics(signature, rows, ratio)
    return statistics


def _f1(
    names: Sequence[str], hyps: Sequence[str], refs: Sequence[Sequence[str]], settings: RougeSettings
) -> list[NDArray[np.float64]]:
    """Returns F1 x 100 of each example against each of its references: [number of references, number of names]."""
    from rouge_score.rouge_scorer import RougeScorer

    if settings.split is RougeSplit.sentences:
        hyps = [_line_by_line(hyp) for hyp in hyps]
        refs = [[_line_by_line(text) for text in references] for references in refs]
    elif "rougeLsum" in names and _one_line_against_several(hyps, refs):
        warn_of_unsplit_sentences()
    scorer = RougeScorer(list(names), tokenizer=_Remembering(settings.tokenizer))
    f1 = []
    for hyp, references in zip(hyps, refs, strict=True):
        scores = [scorer.score(text, hyp) for text in references]
        f1.append(np.array([[100 * score[name].fmeasure for name in names] for score in scores]))
    return f1


def _line_by_line(text: str) -> str:
    return "\n".join(split_sentences(text))


def _one_line_against_several(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> bool:
    """Tells whether hypotheses of several sentences have no line break, while most references have several."""
    if any("\n" in hyp for hyp in hyps) or not any(len(split_sentences(hyp)) > 1 for hyp in hyps):
        return False
    several = sum(len(split_sentences(references[0])) > 1 for references in refs)
    return 2 * several > len(refs)


@cache  # once a process, not at every evaluation
def warn_of_unsplit_sentences() -> None:
    """Says that ROUGE-Lsum may compare one sentence with several."""
    logger.warning(
        "ROUGE-Lsum takes each output as one sentence, for it has no line breaks, but most references have several "
        "sentences; metrics.rouge_split=sentences splits both"
    )


class DefaultTokenizer:
    """rouge-score's own words with a memory for stems, which take most of its time.

    Args:
        stem: Whether words of more than three letters are stemmed (Porter 1980).
    """

    def __init__(self, *, stem: bool):
        self._stemmer = _porter_stemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        """Splits lower-cased text into runs of ASCII letters and digits."""
        from rouge_score.tokenize import tokenize

        tokens: list[str] = tokenize(text, self._stemmer)
        return tokens


class _Stemmer:
    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

        self.stem = lru_cache(maxsize=2**16)(PorterStemmer().stem)


@cache
def _porter_stemmer() -> _Stemmer:
    return _Stemmer()


class _Remembering:
    """A tokenizer that splits a text once though it is compared with several references."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenize = lru_cache(maxsize=2**10)(tokenizer.tokenize)
