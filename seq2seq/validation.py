"""What happens at each evaluation during training: losses, greedy scores, samples, attention."""

from seq2seq import plots
from seq2seq.data.store import TokenStore
from seq2seq.evaluation import Evaluator
from seq2seq.models.base import Seq2Seq
from seq2seq.tracking import NullTracker, samples_markdown


class Validator:
    """Evaluates a model on the validation set as training goes on.

    Args:
        evaluator: How.
        store: The validation set.
        tracker: Receives samples and attention images; the null tracker on ranks that do not write.
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

    def run(self, model: Seq2Seq, step: int) -> dict[str, float]:
        """Evaluates and shows.

        Returns:
            ``valid/loss``, ``valid/ppl``, ``valid/accuracy`` and the configured metrics of the decoded examples.
        """
        values = dict(self._evaluator.loss(model, self._store))
        if self._examples > 0 and len(self._store) > 0:
            outputs = self._evaluator.generate([model], self._store, examples=self._examples, greedy=True)
            values |= self._evaluator.score(outputs, self._store)
            self._show(model, outputs, step)
        return {f"valid/{name}": value for name, value in values.items()}

    def _show(self, model: Seq2Seq, outputs: list[str], step: int) -> None:
        if not self._samples:
            return
        shown = range(min(self._samples, len(outputs)))
        rows = [
            {
                "source": self._store.source_text(i),
                "reference": self._store.target_text(i),
                "output": outputs[i],
            }
            for i in shown
        ]
        self._tracker.text(step, "samples", samples_markdown(rows))
        texts = [self._store.source_text(i) for i in range(self._images)]
        for number, output in enumerate(self._evaluator.explain(model, texts)):
            if output.attention is not None:
                image = plots.attention_heatmap(output.attention, output.source_tokens, output.tokens)
                self._tracker.image(step, f"attention/{number}", image)
