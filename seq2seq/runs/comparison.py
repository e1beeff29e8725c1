"""Two or more systems on the same examples: scores, paired tests, and the examples on which they differ most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seq2seq.errors import UserError
from seq2seq.metrics import LOWER_IS_BETTER, MetricsConfig, Statistics, statistics
from seq2seq.metrics.significance import Array, Sampling, TestedScore, paired_tests
from seq2seq.runs.report import markdown_table

_SHOWN_CHARACTERS = 500  # of a text in Markdown; JSON has all of it


@dataclass(frozen=True)
class System:
    """What one system made of the examples.

    Attributes:
        name: What tables call it; no two are the same.
        outputs: A text for each example.
        place: Where they come from, for messages.
    """

    name: str
    outputs: Sequence[str]
    place: str


@dataclass(frozen=True)
class TestSet:
    """What systems are compared on.

    Attributes:
        name: What headings call it.
        references: At least one for each example.
        sources: One for each example; None where they are not known.
        place: Where they come from, for messages.
    """

    __test__ = False  # not a test case, whatever its name tells pytest

    name: str
    references: Sequence[Sequence[str]]
    sources: Sequence[str] | None
    place: str


@dataclass(frozen=True)
class Contrast:
    """An example with the outputs of the baseline and of another system.

    Attributes:
        number: Of the example, from 1: its line in a text file.
        scores: Sentence-level scores of the two outputs.
        source: None where it is not known.
        references: At least one.
        outputs: The baseline's, then the system's.
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
        better: Where the system is furthest ahead, widest lead first.
        worse: Where it is furthest behind.
    """

    better: Sequence[Contrast]
    worse: Sequence[Contrast]


@dataclass(frozen=True)
class Comparison:
    """Systems compared on one test set; the first is the baseline.

    Attributes:
        test_set: Its name.
        examples: Its size.
        systems: Their names.
        scores: By metric, the systems' in their order.
        signatures: By metric.
        contrasts: By the name of each system but the baseline; they go by the first metric.
        sampling: Of intervals and p-values.
    """

    test_set: str
    examples: int
    systems: tuple[str, ...]
    scores: Mapping[str, Sequence[TestedScore]]
    signatures: Mapping[str, str]
    contrasts: Mapping[str, Contrasts]
    sampling: Sampling

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain mappings, lists, strings and numbers."""
        return {
            "examples": self.examples,
            "baseline": self.systems[0],
            **asdict(self.sampling),
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
    sampling: Sampling,
    examples: int,
) -> Comparison:
    """Scores systems and tests each against the first.

    Args:
        test: The examples.
        systems: Two or more.
        config: The metrics; single examples are compared by the first of `config.names`.
        target_language: See `metrics.score`.
        sampling: Of intervals and p-values.
        examples: How many of those that differ most are kept, in either direction.

    Raises:
        UserError: There are more or fewer outputs than references, or a metric cannot be computed.
    """
    for system in systems:
        if len(system.outputs) != len(test.references):
            raise UserError(
                f"{system.place} has {len(system.outputs):,} outputs, {test.place} has {len(test.references):,} "
                "references: they must be the same examples in the same order, one a line"
            )
    measured = [
        statistics(system.outputs, test.references, config, target_language=target_language) for system in systems
    ]
    metric = next(iter(measured[0]))
    values = [_sentence_scores(by_metric[metric]) for by_metric in measured]
    contrasts = {
        system.name: _contrasts(
            test,
            (systems[0], system),
            (values[0], theirs),
            lower_is_better=metric in LOWER_IS_BETTER,
            count=examples,
        )
        for system, theirs in zip(systems[1:], values[1:], strict=True)
    }
    return Comparison(
        test.name,
        len(test.references),
        tuple(system.name for system in systems),
        paired_tests(measured, sampling),
        {name: _with_sampling(one.signature, sampling) for name, one in measured[0].items()},
        contrasts,
        sampling,
    )


def _sentence_scores(measured: Statistics) -> Array:
    """The score of each example alone, [N]."""
    return np.array([measured.score(row) for row in measured.rows])


def _contrasts(
    test: TestSet,
    systems: tuple[System, System],
    scores: tuple[Array, Array],
    *,
    lower_is_better: bool,
    count: int,
) -> Contrasts:
    """Picks the examples that differ most, at most `count` in either direction; of equal ones the first."""
    gains = scores[0] - scores[1] if lower_is_better else scores[1] - scores[0]

    def example(place: int) -> Contrast:
        return Contrast(
            place + 1,
            (float(scores[0][place]), float(scores[1][place])),
            None if test.sources is None else test.sources[place],
            tuple(test.references[place]),
            (systems[0].outputs[place], systems[1].outputs[place]),
        )

    ahead = [place for place in np.argsort(-gains, kind="stable")[:count].tolist() if gains[place] > 0]
    behind = [place for place in np.argsort(gains, kind="stable")[:count].tolist() if gains[place] < 0]
    return Contrasts([example(place) for place in ahead], [example(place) for place in behind])


def _with_sampling(signature: str, sampling: Sampling) -> str:
    """Names both tests where sacrebleu does: behind the number of references."""
    references, settings = signature.split("|", 1)
    return f"{references}|bs:{sampling.resamples}|ar:{sampling.trials}|seed:{sampling.seed}|{settings}"


def markdown(comparison: Comparison) -> str:
    """Formats a comparison as a Markdown section that reads well as it is."""
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
    sampling = comparison.sampling
    lower = [metric for metric in comparison.scores if metric in LOWER_IS_BETTER]
    return (
        f"Differences are from {comparison.systems[0]}."
        + (f" Lower is better in {', '.join(lower)}." if lower else "")
        + f" Paired bootstrap (Koehn 2004) of {sampling.resamples:,} resamples, approximate randomization (Riezler and "
        f"Maxwell 2005) of {sampling.trials:,} trials, seed {sampling.seed}."
    )


def _contrast_block(contrast: Contrast, names: tuple[str, str]) -> str:
    """An example in a block of code, where no character of its texts means anything to Markdown."""
    before, after = contrast.scores
    texts = [] if contrast.source is None else [("source", contrast.source)]
    texts += [("reference", reference) for reference in contrast.references]
    texts += list(zip(names, contrast.outputs, strict=True))
    width = max(len(label) for label, _ in texts)
    lines = [f"{label.ljust(width)}  {_indented(text, width + 2)}".rstrip() for label, text in texts]
    heading = f"Example {contrast.number}: {before:.2f} and {after:.2f}"
    return "\n".join([heading, "", "```text", *lines, "```"])


def _indented(text: str, width: int) -> str:
    """The text, cut where it is long; lines after the first begin below it, so that none can end the block."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return ("\n" + " " * width).join(shown.splitlines())
