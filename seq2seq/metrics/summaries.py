"""Statistics of summaries relative to their sources: length, novelty, copying, repetition.

These are descriptive, not quality scores: compare them with the same statistics of the references. Each is a ratio of
sums over the whole corpus, so that an empty summary does not count as 0 or 100 percent. Words are those of
`unicode_words`: lower-cased, without punctuation. Published numbers include punctuation, so compare within one
table only.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from seq2seq import __version__
from seq2seq.metrics.bootstrap import Statistics, percentage, ratio
from seq2seq.metrics.signature import Signature, number_of_references
from seq2seq.metrics.words import ngrams, unicode_words

NOVEL_ORDERS = (1, 2, 3, 4)
# Bigrams: in short texts longer n-grams hardly ever repeat, while single words often repeat legitimately.
REPEATED_ORDER = 2

Tokens = Sequence[str]


def summary_statistics(
    hyps: Sequence[str], sources: Sequence[str], refs: Sequence[Sequence[str]]
) -> dict[str, Statistics]:
    """Computes the statistics of each example, as rows [part, whole].

    Args:
        hyps: One summary per example.
        sources: The summarized texts.
        refs: At least one reference per example; used for the length only.

    Returns:
        In percent: `length_ratio` (words in the hypothesis / mean number of words in the example's references),
        `novel_1grams` to `novel_4grams` (n-grams that are not in the source; See et al. 2017, arXiv:1704.04368,
        figure 6), `copied_share` (words inside fragments shared with the source: the extractive fragment coverage of
        Grusky et al. 2018, arXiv:1804.11283) and `repetition_share` (bigrams that occur earlier in the same
        hypothesis). In words: `copied_length`, the mean length of the fragment that a word is in, 0 for words in none
        (their extractive fragment density). Differs from both papers in dividing corpus sums instead of averaging
        over examples.
    """
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for hyp, source, references in zip(hyps, sources, refs, strict=True):
        words, source_words = unicode_words(hyp), unicode_words(source)
        reference_length = float(np.mean([len(unicode_words(text)) for text in references]))
        rows["length_ratio"].append((len(words), reference_length))
        for order in NOVEL_ORDERS:
            in_summary, in_source = ngrams(words, order), set(ngrams(source_words, order))
            num_novel = sum(ngram not in in_source for ngram in in_summary)
            rows[f"novel_{order}grams"].append((num_novel, len(in_summary)))
        lengths = copied_fragments(words, source_words)
        rows["copied_share"].append((sum(lengths), len(words)))
        rows["copied_length"].append((sum(length * length for length in lengths), len(words)))
        repeatable = ngrams(words, REPEATED_ORDER)
        rows["repetition_share"].append((len(repeatable) - len(set(repeatable)), len(repeatable)))
    nrefs = number_of_references(refs)
    return {name: _statistics(name, values, nrefs=nrefs) for name, values in rows.items()}


def copied_fragments(summary: Tokens, source: Tokens) -> list[int]:
    """Returns the lengths of the fragments of a summary that occur verbatim in its source.

    Scans from left to right and takes the longest fragment that starts at each word not yet covered: the extractive
    fragments of Grusky et al. 2018, arXiv:1804.11283.
    """
    occurrences = defaultdict(list)
    for index, word in enumerate(source):
        occurrences[word].append(index)
    lengths = []
    start = 0
    while start < len(summary):
        candidates = occurrences.get(summary[start], ())
        longest = max((_common_length(summary, start, source, index) for index in candidates), default=0)
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths


def _common_length(summary: Tokens, start: int, source: Tokens, source_start: int) -> int:
    """Returns the number of equal words from two starts on; the first words are known to be equal."""
    limit = min(len(summary) - start, len(source) - source_start)
    length = 1
    while length < limit and summary[start + length] == source[source_start + length]:
        length += 1
    return length


def _statistics(name: str, rows: Sequence[tuple[float, float]], *, nrefs: str) -> Statistics:
    in_words = name == "copied_length"
    signature = Signature.of(
        nrefs=nrefs, type=name, measure="words" if in_words else "%", of="sums", tok="unicode", case="lc",
        pkg="seq2seq", version=__version__,
    )  # fmt: skip
    return Statistics(signature, np.array(rows, dtype=np.float64), ratio if in_words else percentage)
