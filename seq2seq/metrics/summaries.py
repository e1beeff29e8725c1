"""What summaries are like beside their sources: how long, how novel, how much copied, how repetitive.

These describe and do not judge: the same figures of the references say what would be right. Every share is of
the whole corpus, the sum over examples of a part divided by the sum of the whole, so that an empty summary
counts for nothing rather than for 0 or 100 percent. Words are those of `UnicodeTokenizer`: lower-cased, without
punctuation. The published figures count punctuation too, so compare within one table only.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from seq2seq import __version__
from seq2seq.metrics.bootstrap import Statistics, percentage, ratio
from seq2seq.metrics.words import UnicodeTokenizer

NOVEL_ORDERS = (1, 2, 3, 4)
# Two: in texts of a few words a longer n-gram hardly comes twice, and a single word often does by right.
REPEATED_ORDER = 2

Tokens = Sequence[str]


def summary_statistics(
    hyps: Sequence[str], sources: Sequence[str], refs: Sequence[Sequence[str]]
) -> dict[str, Statistics]:
    """Computes the parts and wholes of each example: rows [part, whole].

    Args:
        hyps: One summary an example.
        sources: What each summarises.
        refs: At least one reference an example; for the length only.

    Returns:
        In percent: `length_ratio` (words of the hypothesis for each word of a reference, the mean of an example's
        references), `novel_1grams` to `novel_4grams` (n-grams that are not in the source; See et al. 2017,
        arXiv:1704.04368, figure 6), `copied_share` (words inside fragments shared with the source: the extractive
        fragment coverage of Grusky et al. 2018, arXiv:1804.11283) and `repetition_share` (bigrams that stand earlier in
        the same hypothesis). In words: `copied_length`, the length of the fragment that a word is in, 0 for
        words in none (their extractive fragment density). Differs from both papers in that corpus sums are divided, not
        examples averaged.
    """
    tokenize = UnicodeTokenizer().tokenize
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for hyp, source, references in zip(hyps, sources, refs, strict=True):
        words, source_words = tokenize(hyp), tokenize(source)
        reference_length = float(np.mean([len(tokenize(text)) for text in references]))
        rows["length_ratio"].append((len(words), reference_length))
        for order in NOVEL_ORDERS:
            rows[f"novel_{order}grams"].append(_novel(words, source_words, order))
        lengths = copied_fragments(words, source_words)
        rows["copied_share"].append((sum(lengths), len(words)))
        rows["copied_length"].append((sum(length * length for length in lengths), len(words)))
        ngrams = _ngrams(words, REPEATED_ORDER)
        rows["repetition_share"].append((len(ngrams) - len(set(ngrams)), len(ngrams)))
    widths = {len(references) for references in refs}
    nrefs = str(widths.pop()) if len(widths) == 1 else "var"
    return {name: _statistics(name, values, nrefs=nrefs) for name, values in rows.items()}


def copied_fragments(summary: Tokens, source: Tokens) -> list[int]:
    """Lengths of the fragments of a summary that stand in its source word for word.

    From left to right, the longest one that begins at each word that no earlier one holds: the extractive
    fragments of Grusky et al. 2018, arXiv:1804.11283.
    """
    places = defaultdict(list)
    for place, word in enumerate(source):
        places[word].append(place)
    lengths = []
    start = 0
    while start < len(summary):
        longest = max((_common_length(summary, start, source, at) for at in places.get(summary[start], ())), default=0)
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths


def _common_length(summary: Tokens, start: int, source: Tokens, at: int) -> int:
    limit = min(len(summary) - start, len(source) - at)
    length = 1
    while length < limit and summary[start + length] == source[at + length]:
        length += 1
    return length


def _novel(words: Tokens, source_words: Tokens, order: int) -> tuple[int, int]:
    """Counts the n-grams that are not in the source, and all; each time that one occurs."""
    known = set(_ngrams(source_words, order))
    ngrams = _ngrams(words, order)
    return sum(ngram not in known for ngram in ngrams), len(ngrams)


def _ngrams(words: Tokens, order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _statistics(name: str, rows: Sequence[tuple[float, float]], *, nrefs: str) -> Statistics:
    in_words = name == "copied_length"
    signature = (
        f"nrefs:{nrefs}|type:{name}|measure:{'words' if in_words else '%'}|of:sums|tok:unicode|case:lc"
        f"|pkg:seq2seq|version:{__version__}"
    )
    return Statistics(signature, np.array(rows, dtype=np.float64), ratio if in_words else percentage)
