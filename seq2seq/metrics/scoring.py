"""From texts to scores: the metrics of a configuration over one set of examples."""

from collections.abc import Sequence
from dataclasses import replace

from seq2seq.errors import UserError
from seq2seq.metrics.baselines import baseline_texts, describe
from seq2seq.metrics.bleu import sacrebleu_statistics
from seq2seq.metrics.bootstrap import Score, Statistics, corpus_scores
from seq2seq.metrics.config import ROUGE_METRICS, SACREBLEU_METRICS, MetricsConfig
from seq2seq.metrics.languages import primary_language
from seq2seq.metrics.rouge import rouge_settings, rouge_statistics
from seq2seq.metrics.summaries import summary_statistics


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
        Score by metric name, as `statistics` has them.

    Raises:
        UserError: Numbers of hypotheses and references differ, there are none, or an example has no
            reference.
    """
    resamples = config.bootstrap if bootstrap is None else bootstrap
    by_name = statistics(hyps, refs, config, target_language=target_language)
    return corpus_scores(by_name, resamples=resamples, seed=seed)


def statistics(
    hyps: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> dict[str, Statistics]:
    """Computes what each metric needs of each example; `score` says what the arguments are.

    Returns:
        By metric, in the order of `config.names`. Where any example has several references, each ROUGE score,
        which is against the best, is followed by that of the mean over references, `rouge1_mean` and so on.

    Raises:
        UserError: As `score`.
    """
    _check_examples(hyps, refs)
    sacrebleu_names = [name for name in config.names if name in SACREBLEU_METRICS]
    rouge_names = [name for name in config.names if name in ROUGE_METRICS]
    found: dict[str, Statistics] = {}
    if sacrebleu_names:
        language = primary_language(target_language)
        found |= sacrebleu_statistics(
            sacrebleu_names, hyps, refs, language=language, bleu_tokenize=config.bleu_tokenize
        )
    if rouge_names:
        settings = rouge_settings(refs, config, target_language=target_language)
        found |= rouge_statistics(rouge_names, hyps, refs, settings)
    ordered = [key for name in config.names for key in (name, f"{name}_mean")]
    return {name: found[name] for name in ordered if name in found}


def score_summaries(
    hyps: Sequence[str], sources: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig
) -> dict[str, Score]:
    """Says what summaries are like beside their sources, where `config.summary_statistics` asks for it."""
    if not config.summary_statistics:
        return {}
    return corpus_scores(summary_statistics(hyps, sources, refs), resamples=0, seed=0)


def score_baselines(
    sources: Sequence[str],
    refs: Sequence[Sequence[str]],
    config: MetricsConfig,
    *,
    target_language: str | None,
    seed: int,
) -> dict[str, dict[str, Score]]:
    """Scores each of `config.baselines` as a model is scored, with what it is added to the signatures.

    Returns:
        By baseline, the scores by metric. With `config.summary_statistics` also `reference`: the summary
        statistics of each example's first reference.
    """
    scores = {}
    for name, texts in baseline_texts(sources, refs, config, target_language=target_language).items():
        found = score(texts, refs, config, target_language=target_language, seed=seed)
        found |= score_summaries(texts, sources, refs, config)
        made = describe(name, config)
        scores[name] = {key: replace(one, signature=f"{one.signature}|{made}") for key, one in found.items()}
    if config.summary_statistics:
        scores["reference"] = score_summaries([references[0] for references in refs], sources, refs, config)
    return scores


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
