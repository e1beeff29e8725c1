"""Summaries that need no model: the lead, which a model has to beat, and the extractive oracle, a ceiling.

Both take whole sentences of the whole source, also where a model reads only its beginning, and write one a line,
which is how rouge-score is told where sentences end.
"""

from collections import Counter
from collections.abc import Sequence

from seq2seq.metrics.config import MetricsConfig
from seq2seq.metrics.rouge import Tokenizer, rouge_settings
from seq2seq.metrics.sentences import split_sentences
from seq2seq.metrics.words import first_words

Ngrams = Counter[tuple[str, ...]]


def baseline_texts(
    sources: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> dict[str, list[str]]:
    """Makes the texts of each of `config.baselines`, one an example.

    Args:
        sources: The texts to summarise.
        refs: At least one reference an example; only the oracle looks at them.
        config: The metrics section.
        target_language: As for `score`: the oracle counts words as ROUGE does.
    """
    texts: dict[str, list[str]] = {}
    for name in config.baselines:
        if name == "lead":
            texts[name] = [lead(text, sentences=config.lead_sentences, words=config.lead_words) for text in sources]
        else:
            tokenizer = rouge_settings(refs, config, target_language=target_language).tokenizer
            pairs = zip(sources, refs, strict=True)
            texts[name] = [oracle(source, references, tokenizer) for source, references in pairs]
    return texts


def describe(name: str, config: MetricsConfig) -> str:
    """What a baseline adds to the signatures of its scores."""
    if name != "lead":
        return f"text:{name}"
    words = "all" if config.lead_words is None else str(config.lead_words)
    return f"text:lead|sentences:{config.lead_sentences}|words:{words}"


def lead(source: str, *, sentences: int, words: int | None) -> str:
    """The first sentences of a source, cut behind so many words if a number is given."""
    text = "\n".join(split_sentences(source)[:sentences])
    return text if words is None else first_words(text, words)


def oracle(source: str, references: Sequence[str], tokenizer: Tokenizer) -> str:
    """The sentences of a source that match a reference best, in their order; empty where no word matches.

    Sentences are added one by one, each time the one that raises the sum of ROUGE-1 and ROUGE-2 F1 most, until
    none raises it (Nallapati et al. 2017, arXiv:1611.04230, "Extractive Training"). With several references, each
    gets a choice of its own, and the one that matches best is taken.

    Args:
        source: The text to choose from.
        references: At least one.
        tokenizer: The one that ROUGE counts with.
    """
    sentences = split_sentences(source)
    tokens = [tokenizer.tokenize(sentence) for sentence in sentences]
    choices = [_choose(tokens, tokenizer.tokenize(reference)) for reference in references]
    _, chosen = max(choices, key=lambda choice: choice[0])
    return "\n".join(sentences[number] for number in chosen)


def _choose(sentences: Sequence[list[str]], reference: list[str]) -> tuple[float, list[int]]:
    """Returns the best sum of F1 that greedy choice finds, and the numbers of the sentences in their order."""
    words = set(reference)
    left = [number for number, tokens in enumerate(sentences) if words & set(tokens)]  # others only lower precision
    best, chosen = 0.0, list[int]()
    while left:
        selections = [sorted([*chosen, number]) for number in left]
        values = [match([word for i in selection for word in sentences[i]], reference) for selection in selections]
        top = max(range(len(left)), key=values.__getitem__)
        if values[top] <= best:
            break
        best, chosen = values[top], selections[top]
        left.pop(top)
    return best, chosen


def match(words: list[str], reference: list[str]) -> float:
    """The sum of ROUGE-1 and ROUGE-2 F1 of two texts' words, 0 to 2."""
    return sum(_f1(_ngrams(words, order), _ngrams(reference, order)) for order in (1, 2))


def _f1(hyp: Ngrams, ref: Ngrams) -> float:
    """Twice the common n-grams over the n-grams of both: the harmonic mean of precision and recall."""
    both = hyp.total() + ref.total()
    return 2 * (hyp & ref).total() / both if both else 0.0


def _ngrams(words: list[str], order: int) -> Ngrams:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))
