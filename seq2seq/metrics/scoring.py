"""Computes the configured metrics of a set of examples."""

from collections.abc import Sequence
from dataclasses import replace

from seq2seq.errors import UserError
from seq2seq.metrics.baselines import baseline_texts
from seq2seq.metrics.bleu import sacrebleu_statistics
from seq2seq.metrics.bootstrap import Score, Statistics, corpus_scores
from seq2seq.metrics.config import ROUGE_METRICS, SACREBLEU_METRICS, MetricsConfig
from seq2seq.metrics.languages import primary_language
from seq2seq.metrics.rouge import rouge_statistics
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
        hyps: One detokenized text per example.
        refs: At least one reference per example; the number may vary.
        config: The metrics section.
        target_language: A code such as `de`, `zh_CN` or `zho_Hans`; selects BLEU's tokenizer and stemming.
        seed: Seed of the bootstrap; all metrics use the same resampled examples.
        bootstrap: Number of resamples; overrides `config.bootstrap`.

    Returns:
        Scores by metric, with the names that `statistics` returns.

    Raises:
        UserError: The numbers of hypotheses and references differ, there are none, or an example has no reference.
    """
    resamples = config.bootstrap if bootstrap is None else bootstrap
    stats = statistics(hyps, refs, config, target_language=target_language)
    return corpus_scores(stats, resamples=resamples, seed=seed)


def statistics(
    hyps: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig, *, target_language: str | None
) -> dict[str, Statistics]:
    """Computes the sufficient statistics of each metric; see `score` for the arguments.

    Returns:
        Statistics by metric, in the order of `config.names`. If any example has several references, each ROUGE
        metric, which is against the best one, is followed by the mean over references: `rouge1_mean` and so on.

    Raises:
        UserError: As `score`.
    """
    _check_examples(hyps, refs)
    sacrebleu_names = [name for name in config.names if name in SACREBLEU_METRICS]
    rouge_names = [name for name in config.names if name in ROUGE_METRICS]
    language = primary_language(target_language)
    found = sacrebleu_statistics(sacrebleu_names, hyps, refs, language=language, bleu_tokenize=config.bleu_tokenize)
    if rouge_names:
        found |= rouge_statistics(rouge_names, hyps, refs, config, target_language=target_language)
    ordered = [key for name in config.names for key in (name, f"{name}_mean")]
    return {name: found[name] for name in ordered if name in found}


def score_summaries(
    hyps: Sequence[str], sources: Sequence[str], refs: Sequence[Sequence[str]], config: MetricsConfig
) -> dict[str, Score]:
    """Computes the summary statistics if `config.summary_statistics` is set, else returns {}."""
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
    """Scores each of `config.baselines` like a model, with the baseline appended to the signatures.

    Returns:
        Scores by metric, by baseline. With `config.summary_statistics` also `reference`: the summary statistics of
        each example's first reference.
    """
    scores = {}
    for name, (texts, settings) in baseline_texts(sources, refs, config, target_language=target_language).items():
        found = score(texts, refs, config, target_language=target_language, seed=seed)
        found |= score_summaries(texts, sources, refs, config)
        scores[name] = {
            key: replace(value, signature=value.signature.append(**settings)) for key, value in found.items()
        }
    if config.summary_statistics:
        scores["reference"] = score_summaries([references[0] for references in refs], sources, refs, config)
    return scores


def _check_examples(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> None:
    # sacrebleu silently truncates the longer list, and raises an IndexError for an empty one.
    if len(hyps) != len(refs):
        raise UserError(f"cannot score {len(hyps)} hypotheses against {len(refs)} references")
    if not hyps:
        raise UserError("cannot score an empty set of examples")
    for number, references in enumerate(refs, start=1):
        if isinstance(references, str):
            raise TypeError("refs holds a list of references for each example, not one string")
        if not references:
            raise UserError(f"example {number} has no reference to score against")
