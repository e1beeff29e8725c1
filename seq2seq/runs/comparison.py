"""Compares systems on the same examples: scores, paired significance tests, and where outputs differ most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seq2seq.errors import UserError
from seq2seq.metrics import LOWER_IS_BETTER, MetricsConfig, statistics
from seq2seq.metrics.significance import Array, ResamplingConfig, TestedScore, paired_tests
from seq2seq.runs.tables import markdown_table, shorten

_MAX_CHARACTERS = 500  # longer texts are cut in Markdown; JSON has them in full


@dataclass(frozen=True)
class System:
    """A system's outputs.

    Attributes:
        name: Unique name, for tables.
        outputs: One text per example.
        origin: Where the outputs come from, for messages.
    """

    name: str
    outputs: Sequence[str]
    origin: str


@dataclass(frozen=True)
class TestSet:
    """The examples on which systems are compared.

    Attributes:
        name: Name, for headings.
        references: One or more texts per example.
        sources: One text per example; None if unknown.
        origin: Where the references come from, for messages.
    """

    __test__ = False  # keeps pytest from collecting it as a test case

    name: str
    references: Sequence[Sequence[str]]
    sources: Sequence[str] | None
    origin: str


@dataclass(frozen=True)
class Contrast:
    """An example with the outputs of the baseline and of another system.

    Attributes:
        number: Line number of the example in a text file, from 1.
        scores: Sentence-level scores of the two outputs, the baseline's first.
        source: None if unknown.
        references: One or more texts.
        outputs: The two outputs, the baseline's first.
    """

    number: int
    scores: tuple[float, float]
    source: str | None
    references: tuple[str, ...]
    outputs: tuple[str, str]


@dataclass(frozen=True)
class Contrasts:
    """The examples on which a system and the baseline differ most.

    Attributes:
        better: Examples on which the system is furthest ahead, largest difference first.
        worse: Examples on which it is furthest behind, largest difference first.
    """

    better: Sequence[Contrast]
    worse: Sequence[Contrast]


@dataclass(frozen=True)
class Comparison:
    """Systems compared on one test set; the first is the baseline.

    Attributes:
        test_set: Name of the test set.
        examples: Number of examples.
        systems: Names of the systems.
        scores: For each metric, the scores in the order of `systems`.
        signatures: The signature of each metric.
        contrasts: For each system except the baseline, by the first metric.
        resampling: Settings of intervals and p-values.
    """

    test_set: str
    examples: int
    systems: tuple[str, ...]
    scores: Mapping[str, Sequence[TestedScore]]
    signatures: Mapping[str, str]
    contrasts: Mapping[str, Contrasts]
    resampling: ResamplingConfig

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as plain mappings, lists, strings and numbers."""
        return {
            "examples": self.examples,
            "baseline": self.systems[0],
            **asdict(self.resampling),
            "metrics": {
                metric: {
                    "signature": self.signatures[metric],
                    "lower_is_better": metric in LOWER_IS_BETTER,
                    "systems": {
                        name: {key: value for key, value in asdict(score).items() if value is not None}
                        for name, score in zip(self.systems, scores, strict=True)
                    },
                }
                for metric, scores in self.scores.items()
            },
            "contrasts": {
                "metric": next(iter(self.scores)),
                "systems": {name: asdict(contrasts) for name, contrasts in self.contrasts.items()},
            },
        }


def compare(
    test: TestSet,
    systems: Sequence[System],
    config: MetricsConfig,
    *,
    target_language: str | None,
    resampling: ResamplingConfig,
    examples: int,
) -> Comparison:
    """Scores systems and tests each one against the first.

    Args:
        test: The test set.
        systems: Two or more; the first is the baseline.
        config: The metrics; single examples are compared by the first of `config.names`.
        target_language: See `metrics.score`.
        resampling: Settings of intervals and p-values.
        examples: Number of examples to keep per direction (better, worse).

    Raises:
        UserError: There are more or fewer outputs than references, or a metric cannot be computed.
    """
    for system in systems:
        if len(system.outputs) != len(test.references):
            raise UserError(
                f"{system.origin} has {len(system.outputs):,} outputs, {test.origin} has {len(test.references):,} "
                "references: they must be the same examples in the same order, one per line"
            )
    system_statistics = [
        statistics(system.outputs, test.references, config, target_language=target_language) for system in systems
    ]
    metric = next(iter(system_statistics[0]))
    of_metric = [by_metric[metric] for by_metric in system_statistics]
    sentence_scores = [np.array([stats.score(row) for row in stats.rows]) for stats in of_metric]  # [N] of each system
    contrasts = {
        system.name: _contrasts(
            test,
            (systems[0], system),
            (sentence_scores[0], scores),
            lower_is_better=metric in LOWER_IS_BETTER,
            count=examples,
        )
        for system, scores in zip(systems[1:], sentence_scores[1:], strict=True)
    }
    return Comparison(
        test.name,
        len(test.references),
        tuple(system.name for system in systems),
        paired_tests(system_statistics, resampling),
        {
            name: str(
                entry.signature.with_resampling(bs=resampling.resamples, ar=resampling.trials, seed=resampling.seed)
            )
            for name, entry in system_statistics[0].items()
        },
        contrasts,
        resampling,
    )


def _contrasts(
    test: TestSet,
    systems: tuple[System, System],
    scores: tuple[Array, Array],
    *,
    lower_is_better: bool,
    count: int,
) -> Contrasts:
    """Returns the examples that differ most, at most `count` per direction; ties keep the order of the examples."""
    gains = scores[0] - scores[1] if lower_is_better else scores[1] - scores[0]

    def contrast(index: int) -> Contrast:
        return Contrast(
            index + 1,
            (float(scores[0][index]), float(scores[1][index])),
            None if test.sources is None else test.sources[index],
            tuple(test.references[index]),
            (systems[0].outputs[index], systems[1].outputs[index]),
        )

    better = [index for index in np.argsort(-gains, kind="stable")[:count].tolist() if gains[index] > 0]
    worse = [index for index in np.argsort(gains, kind="stable")[:count].tolist() if gains[index] < 0]
    return Contrasts([contrast(index) for index in better], [contrast(index) for index in worse])


def markdown(comparison: Comparison) -> str:
    """Formats a comparison as a Markdown section."""
    parts = [
        f"## {comparison.test_set}: {comparison.examples:,} examples",
        markdown_table(list(_score_rows(comparison))),
        _explanation(comparison),
        "\n".join(f"- {metric}: `{signature}`" for metric, signature in comparison.signatures.items()),
    ]
    metric = next(iter(comparison.scores))
    baseline = comparison.systems[0]
    for name, contrasts in comparison.contrasts.items():
        for examples, ahead, behind in ((contrasts.better, name, baseline), (contrasts.worse, baseline, name)):
            if examples:
                parts.append(f"### Where {ahead} is furthest ahead of {behind}, by {metric} of single examples")
            parts += [_contrast_block(contrast, (baseline, name)) for contrast in examples]
    return "\n\n".join(parts)


def _score_rows(comparison: Comparison) -> Iterator[list[str]]:
    yield [
        "metric",
        "system",
        "score",
        "95 % interval",
        "difference",
        "95 % interval",
        "p bootstrap",
        "p randomization",
    ]
    for metric, scores in comparison.scores.items():
        for name, tested in zip(comparison.systems, scores, strict=True):
            row = [metric, name.replace("|", "\\|"), f"{tested.score:.2f}", f"{tested.low:.2f} to {tested.high:.2f}"]
            difference = tested.difference
            if difference is None:
                yield [*row, "", "", "", ""]
                continue
            yield [
                *row,
                f"{difference.value:+.2f}",
                f"{difference.low:+.2f} to {difference.high:+.2f}",
                _probability(difference.p_bootstrap),
                _probability(difference.p_randomization),
            ]


def _probability(value: float) -> str:
    return f"{value:.4f}" if value >= 0.00005 else f"{value:.1e}"


def _explanation(comparison: Comparison) -> str:
    resampling = comparison.resampling
    lower = [metric for metric in comparison.scores if metric in LOWER_IS_BETTER]
    return (
        f"Differences are from {comparison.systems[0]}."
        + (f" Lower is better in {', '.join(lower)}." if lower else "")
        + f" Paired bootstrap (Koehn 2004) of {resampling.resamples:,} resamples, approximate randomization (Riezler "
        f"and Maxwell 2005) of {resampling.trials:,} trials, seed {resampling.seed}."
    )


def _contrast_block(contrast: Contrast, names: tuple[str, str]) -> str:
    """Formats an example as a code block, in which Markdown takes no character of the texts as markup."""
    before, after = contrast.scores
    texts = [] if contrast.source is None else [("source", contrast.source)]
    texts += [("reference", reference) for reference in contrast.references]
    texts += list(zip(names, contrast.outputs, strict=True))
    width = max(len(label) for label, _ in texts)
    lines = [f"{label.ljust(width)}  {_indented(text, width + 2)}".rstrip() for label, text in texts]
    heading = f"Example {contrast.number}: {before:.2f} and {after:.2f}"
    return "\n".join([heading, "", "```text", *lines, "```"])


def _indented(text: str, width: int) -> str:
    """Cuts a long text and indents all lines but the first, so that none can end the code block."""
    return ("\n" + " " * width).join(shorten(text, _MAX_CHARACTERS).splitlines())
