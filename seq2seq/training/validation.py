"""Evaluation during training: losses, scores of greedy outputs, samples, attention, copying."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.data.store import TokenStore
from seq2seq.inference.evaluator import Evaluator
from seq2seq.inference.generator import GenerationOutput
from seq2seq.models.base import Seq2Seq
from seq2seq.runs import plots
from seq2seq.runs.tracking import Markdown, Tracker, copy_probs_markdown, samples_markdown

# Examples on which the copy rate is measured: one batch, decoded a second time.
_NUM_COPY_EXAMPLES = 64


@dataclass(frozen=True)
class ValidationResult:
    """The result of an evaluation.

    Attributes:
        values: ``valid/loss``, ``valid/ppl``, ``valid/accuracy`` and the configured metrics of the decoded examples;
            for a model that copies also ``valid/copy_rate``, the percentage of copied tokens in the first 64 outputs.
        outputs: Outputs of the decoded examples.
        references: Their targets.
        explanations: The first outputs with their attention.
    """

    values: dict[str, float]
    outputs: list[str]
    references: list[str]
    explanations: list[GenerationOutput]


class Validator:
    """Evaluates a model on the validation set during training.

    Args:
        evaluator: Computes losses, outputs and scores.
        store: The validation set.
        tracker: Receives values, samples and attention images; one without a folder on ranks that do not write.
        examples: Number of examples to decode, greedily; the loss is that of all examples.
        samples: Number of decoded examples to show; 0 on ranks that do not write.
        images: Number of attention heat maps to draw, at most 4 and at most ``samples``.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        store: TokenStore,
        *,
        tracker: Tracker,
        examples: int,
        samples: int,
        images: int,
    ):
        self._evaluator = evaluator
        self._store = store
        self._tracker = tracker
        self._examples = examples
        self._samples = min(samples, len(store))
        self._images = min(images, self._samples)

    def run(self, model: Seq2Seq) -> ValidationResult:
        """Evaluates the model, without logging. Decodes nothing if the loss is not a finite number."""
        values, outputs = self._evaluator.validate(model, self._store, examples=self._examples)
        explanations: list[GenerationOutput] = []
        if outputs:
            explanations = self._explain(model, len(outputs))
            if model.output.copies:
                values["copy_rate"] = copy_rate(explanations)
        references = [self._store.target_text(i) for i in range(len(outputs))]
        return ValidationResult(
            {f"valid/{name}": value for name, value in values.items()}, outputs, references, explanations
        )

    def _explain(self, model: Seq2Seq, num_decoded: int) -> list[GenerationOutput]:
        """Returns the first outputs with attention: those to draw and, if the model copies, those for the copy rate."""
        count = self._images
        if model.output.copies:
            count = min(max(self._samples, _NUM_COPY_EXAMPLES), num_decoded)
        return self._evaluator.generate_with_attention(model, [self._store.source_text(i) for i in range(count)])

    def log(self, result: ValidationResult, step: int) -> None:
        """Logs the values, and samples and heat maps if configured."""
        self._tracker.log(step, result.values)
        if not self._samples or not result.outputs:
            return
        num_samples = min(self._samples, len(result.outputs))
        rows = [
            {"source": self._store.source_text(i), "reference": result.references[i], "output": result.outputs[i]}
            for i in range(num_samples)
        ]
        if any(output.copied is not None for output in result.explanations):
            for row, output in zip(rows, result.explanations, strict=False):
                row["copied, %"] = (
                    Markdown() if output.copied is None else copy_probs_markdown(output.tokens, output.copied)
                )
        self._tracker.text(step, "samples", samples_markdown(rows))
        for index, output in enumerate(result.explanations[: self._images]):
            if output.attention is not None:
                image = plots.attention_heatmap(
                    output.attention, output.source_tokens, output.tokens, copy_probs=output.copied
                )
                self._tracker.image(step, f"attention/{index}", image)
        if result.explanations:
            gc.collect()  # Matplotlib figures are large reference cycles, which would live for thousands of steps


def copy_rate(outputs: Sequence[GenerationOutput]) -> float:
    """Mean probability in percent that an output token, end-of-sentence included, was copied; 0 without outputs."""
    probabilities = [probability for output in outputs for probability in output.copied or ()]
    return 100 * sum(probabilities) / len(probabilities) if probabilities else 0.0
