"""Summaries without a model: the lead, and the greedy extractive oracle, which shows how far selection can get.

Both select sentences from the whole source, even where a model reads only its beginning, and write one sentence per
line, which is how rouge-score finds sentence boundaries.
"""

from collections import Counter
from collections.abc import Sequence

from seq2seq.metrics.config import MetricsConfig
from seq2seq.metrics.rouge import Tokenize, rouge_tokenizer
from seq2seq.metrics.sentences import split_sentences
from seq2seq.metrics.words import first_words, ngrams

Ngrams = Counter[tuple[str, ...]]


def baseline_texts(
    sources: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> dict[str, tuple[list[str], dict[str, object]]]:
    """Returns each of `config.baselines`: its texts, one per example, and what it appends to the signatures of scores.

    Args:
        sources: The texts to summarise.
        refs: At least one reference per example; only the oracle uses them.
        config: The metrics section.
        target_language: Language code; the oracle splits words as ROUGE does for this language.
    """
    baselines: dict[str, tuple[list[str], dict[str, object]]] = {}
    for name in config.baselines:
        if name == "lead":
            words = "all" if config.lead_words is None else config.lead_words
            texts = [lead(text, sentences=config.lead_sentences, words=config.lead_words) for text in sources]
            baselines[name] = texts, {"text": name, "sentences": config.lead_sentences, "words": words}
        else:
            tokenize, _ = rouge_tokenizer(refs, config, target_language=target_language)
            texts = [oracle(source, references, tokenize) for source, references in zip(sources, refs, strict=True)]
            baselines[name] = texts, {"text": name}
    return baselines


def lead(source: str, *, sentences: int, words: int | None) -> str:
    """Returns the first `sentences` sentences of a source, cut after `words` words unless that is None."""
    text = "\n".join(split_sentences(source)[:sentences])
    return text if words is None else first_words(text, words)


def oracle(source: str, references: Sequence[str], tokenize: Tokenize) -> str:
    """Returns the sentences of a source that match a reference best, in order; empty if no word matches.

    Greedily adds the sentence that increases the sum of ROUGE-1 and ROUGE-2 F1 most, until none increases it
    (Nallapati et al. 2017, arXiv:1611.04230, "Extractive Training"). With several references, selects sentences for
    each one separately and returns the selection with the highest sum.

    Args:
        source: The text to select from.
        references: At least one.
        tokenize: Splits a text into words as ROUGE does.
    """
    sentences = split_sentences(source)
    tokens = [tokenize(sentence) for sentence in sentences]
    selections = [_select_greedily(tokens, tokenize(reference)) for reference in references]
    _, selected = max(selections, key=lambda selection: selection[0])
    return "\n".join(sentences[index] for index in selected)


def _select_greedily(sentences: Sequence[list[str]], reference: list[str]) -> tuple[float, list[int]]:
    """Returns the highest sum of F1 that greedy selection finds, and the ascending indices of the sentences."""
    words = set(reference)
    # Sentences without a word of the reference only lower the precision.
    candidates = [index for index, tokens in enumerate(sentences) if words & set(tokens)]
    best, selected = 0.0, list[int]()
    while candidates:
        selections = [sorted([*selected, index]) for index in candidates]
        values = [
            rouge_1_2_f1([word for i in selection for word in sentences[i]], reference) for selection in selections
        ]
        top = max(range(len(candidates)), key=values.__getitem__)
        if values[top] <= best:
            break
        best, selected = values[top], selections[top]
        candidates.pop(top)
    return best, selected


def rouge_1_2_f1(words: list[str], reference: list[str]) -> float:
    """Returns the sum of ROUGE-1 and ROUGE-2 F1 of two tokenized texts, 0 to 2."""
    return sum(_f1(Counter(ngrams(words, order)), Counter(ngrams(reference, order))) for order in (1, 2))


def _f1(hyp: Ngrams, ref: Ngrams) -> float:
    """Returns F1, the harmonic mean of precision and recall: twice the common n-grams over the n-grams of both."""
    total = hyp.total() + ref.total()
    return 2 * (hyp & ref).total() / total if total else 0.0
