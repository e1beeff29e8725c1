"""What happens at each evaluation during training: losses, greedy scores, samples, attention, copying."""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.data.store import TokenStore
from seq2seq.inference.evaluator import Evaluator
from seq2seq.inference.generator import Output
from seq2seq.models.base import Seq2Seq
from seq2seq.runs import plots
from seq2seq.runs.tracking import Markdown, NullTracker, copied_markdown, samples_markdown

# How much is copied is measured on so many examples: one batch, decoded once more.
_COPY_EXAMPLES = 64


@dataclass(frozen=True)
class Validation:
    """What an evaluation found.

    Attributes:
        values: ``valid/loss``, ``valid/ppl``, ``valid/accuracy`` and the configured metrics of the decoded examples; of
            a model that copies also ``valid/copy_rate``, the percentage of the tokens of the first 64 that was copied.
        outputs: Of the decoded examples.
        references: Their targets.
        explained: The first outputs with attention.
    """

    values: dict[str, float]
    outputs: list[str]
    references: list[str]
    explained: list[Output]


class Validator:
    """Evaluates a model on the validation set as training goes on.

    Args:
        evaluator: How.
        store: The validation set.
        tracker: Receives values, samples and attention images; the null tracker on ranks that do not write.
        examples: How many examples are decoded, greedily; the loss is of all.
        samples: How many of them are shown; 0 on ranks that do not write.
        images: How many attention heat maps are drawn, at most 4.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        store: TokenStore,
        *,
        tracker: NullTracker,
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

    def run(self, model: Seq2Seq) -> Validation:
        """Evaluates, and writes nothing yet. A model whose loss is not a finite number is not asked for outputs."""
        values = dict(self._evaluator.loss(model, self._store))
        outputs: list[str] = []
        explained: list[Output] = []
        if self._examples > 0 and len(self._store) > 0 and math.isfinite(values["loss"]):
            outputs = self._evaluator.generate([model], self._store, examples=self._examples, greedy=True)
            values |= self._evaluator.score(outputs, self._store)
            explained = self._explain(model, len(outputs))
            if model.output.copies:
                values["copy_rate"] = copy_rate(explained)
        references = [self._store.target_text(i) for i in range(len(outputs))]
        return Validation({f"valid/{name}": value for name, value in values.items()}, outputs, references, explained)

    def _explain(self, model: Seq2Seq, decoded: int) -> list[Output]:
        """The first outputs with attention: those to be drawn, and where the model copies those to be measured."""
        count = self._images
        if model.output.copies:
            count = min(max(self._samples, _COPY_EXAMPLES), decoded)
        return self._evaluator.explain(model, [self._store.source_text(i) for i in range(count)])

    def show(self, found: Validation, step: int) -> None:
        """Logs what was found: the values, and samples and heat maps where they are wanted."""
        self._tracker.log(step, found.values)
        if not self._samples or not found.outputs:
            return
        shown = min(self._samples, len(found.outputs))
        rows = [
            {"source": self._store.source_text(i), "reference": found.references[i], "output": found.outputs[i]}
            for i in range(shown)
        ]
        if any(output.copied is not None for output in found.explained):
            for row, output in zip(rows, found.explained, strict=False):
                row["copied, %"] = (
                    Markdown() if output.copied is None else copied_markdown(output.tokens, output.copied)
                )
        self._tracker.text(step, "samples", samples_markdown(rows))
        for number, output in enumerate(found.explained[: self._images]):
            if output.attention is not None:
                image = plots.attention_heatmap(
                    output.attention, output.source_tokens, output.tokens, copied=output.copied
                )
                self._tracker.image(step, f"attention/{number}", image)
        if found.explained:
            gc.collect()  # figures are megabytes in reference cycles, which Python would leave for thousands of steps


def copy_rate(outputs: Sequence[Output]) -> float:
    """The mean probability, in percent, that an output token was copied, the end of sentence counted; 0 of none."""
    shares = [share for output in outputs for share in output.copied or ()]
    return 100 * sum(shares) / len(shares) if shares else 0.0
