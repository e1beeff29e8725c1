"""Evaluates models on a data set: teacher-forced loss, and metrics of decoded text. Ranks share the work."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from seq2seq import metrics
from seq2seq.data.batching import collate, evaluation_batches
from seq2seq.data.ragged import IntArray
from seq2seq.data.store import TokenStore
from seq2seq.inference.generator import GenerationOutput, Generator
from seq2seq.inference.oom import BatchSplitter
from seq2seq.metrics import MetricsConfig, Score
from seq2seq.models.base import Seq2Seq
from seq2seq.models.objective import Objective
from seq2seq.models.output import LossSums
from seq2seq.search.config import SearchConfig
from seq2seq.system.device import Runtime
from seq2seq.system.distributed import World
from seq2seq.tokenizers.pair import Tokenizers


class Evaluator:
    """Computes losses, outputs and scores of models on token stores.

    Args:
        tokenizers: Those of the models.
        search: The search for final scores; evaluations during training are greedy.
        metrics: Which metrics to compute.
        target_language: Selects BLEU's tokenizer; None means a language that separates words by spaces.
        batch_tokens: Size limit of a teacher-forced batch: examples × max(padded source, padded target).
        max_source_length: Length that sources are truncated to, including the end of sentence.
        seed: For bootstrap resampling and sampling.
        runtime: The device; losses are computed in its precision, search in ``search.precision``.
        world: The ranks that share the work; all of them get the full result.

    Attributes:
        loss_splitter: Splits batches when computing losses runs out of memory.
        search_splitter: Likewise for decoding.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        *,
        search: SearchConfig,
        metrics: MetricsConfig,
        target_language: str | None,
        batch_tokens: int,
        max_source_length: int,
        seed: int,
        runtime: Runtime,
        world: World | None = None,
    ):
        self.tokenizers = tokenizers
        self._search, self._metrics, self._target_language = search, metrics, target_language
        self._batch_tokens, self._max_source_length, self._seed = batch_tokens, max_source_length, seed
        self._runtime = runtime
        self._world = world or World()
        self.loss_splitter = BatchSplitter(runtime.device, action="computing the loss of")
        self.search_splitter = BatchSplitter(runtime.device, action="decoding")

    @torch.inference_mode()
    def loss(self, model: Seq2Seq, store: TokenStore) -> dict[str, float]:
        """Computes the unsmoothed loss of reference targets given their sources.

        Returns:
            ``loss`` (nats per target token, including the end of sentence), ``ppl`` (its exponential) and ``accuracy``
            (percentage of target tokens that the model ranks first). The worst values, infinite, infinite and
            0, for an empty store and for a loss that is not finite.
        """
        objective = Objective(model)
        was_training = model.training
        model.eval()
        totals = torch.zeros(3, dtype=torch.float64)

        def loss_sums(indices: IntArray) -> LossSums:
            batch = collate(store, indices).to(self._runtime.device)
            with self._runtime.autocast():
                sums: LossSums = objective(batch.src, batch.tgt_in, batch.rows, batch.labels, 0.0)
            return sums

        source_limit, target_limit = store.report.source.limit, store.report.target.limit
        hint = f"lower data.max_source_length={source_limit} or data.max_target_length={target_limit}"
        batches = evaluation_batches(store.source_lengths, store.target_lengths, batch_tokens=self._batch_tokens)
        for indices in batches[self._world.rank :: self._world.size]:
            for _, sums in self.loss_splitter.map(indices, loss_sums, hint=hint):
                totals += torch.stack([sums.nll, sums.correct, sums.tokens]).double().cpu()
        model.train(was_training)
        nll, correct, tokens = self._world.sum(totals).tolist()
        if tokens == 0 or not math.isfinite(nll):  # logits that are NaN would count as predicting every token
            return {"loss": math.inf, "ppl": math.inf, "accuracy": 0.0}
        loss = nll / tokens
        return {"loss": loss, "ppl": perplexity(loss), "accuracy": 100 * correct / tokens}

    def generate(
        self,
        models: Sequence[Seq2Seq],
        store: TokenStore,
        *,
        examples: int | None = None,
        greedy: bool = False,
    ) -> list[str]:
        """Decodes the sources of a store, or of its first examples.

        Args:
            models: One model, or several for an ensemble.
            store: The data set.
            examples: Number of examples to decode; None means all.
            greedy: Whether to use greedy search regardless of the configuration.

        Returns:
            One output per example, in order, on every rank.
        """
        count = len(store) if examples is None else min(examples, len(store))
        generator = self.generator(models, greedy=greedy)
        texts = [store.source_text(i) for i in range(self._world.rank, count, self._world.size)]
        parts = self._world.gather(generator.generate(texts))
        outputs = [""] * count
        for rank, part in enumerate(parts):
            outputs[rank :: self._world.size] = part
        return outputs

    def validate(self, model: Seq2Seq, store: TokenStore, *, examples: int) -> tuple[dict[str, float], list[str]]:
        """Computes the loss on a store and scores greedy outputs of its first examples.

        Decodes nothing if there are no examples, or the loss is not a finite number.

        Returns:
            The values of ``loss`` and ``score``, and the outputs.
        """
        values = self.loss(model, store)
        if not (examples and len(store) and math.isfinite(values["loss"])):
            return values, []
        outputs = self.generate([model], store, examples=examples, greedy=True)
        return values | self.score(outputs, store), outputs

    def generate_with_attention(self, model: Seq2Seq, texts: Sequence[str]) -> list[GenerationOutput]:
        """Decodes texts greedily and returns outputs with the attention of each output token."""
        generator = self.generator([model], greedy=True)
        return [outputs[0] for outputs in generator.generate_nbest(texts, need_attention=True)]

    def generator(self, models: Sequence[Seq2Seq], *, greedy: bool = False) -> Generator:
        """Builds a generator of the models with this evaluator's search settings."""
        search = self._search
        if greedy:
            # The coverage penalty only ranks hypotheses, and greedy search has one.
            search = replace(search, beam_size=1, n_best=1, sampling=False, coverage_penalty=0.0)
        generator = Generator(
            models,
            self.tokenizers,
            search,
            device=self._runtime.device,
            max_source_length=self._max_source_length,
            seed=self._seed,
        )
        generator.splitter = self.search_splitter
        return generator

    def score(self, outputs: Sequence[str], store: TokenStore) -> dict[str, float]:
        """Scores outputs of the store's first ``len(outputs)`` examples with the configured metrics only."""
        scores = metrics.score(
            outputs,
            _references(store, len(outputs)),
            self._metrics,
            target_language=self._target_language,
            seed=self._seed,
            bootstrap=0,
        )
        return {name: scores[name].score for name in self._metrics.names}

    def score_test(self, outputs: Sequence[str], store: TokenStore) -> dict[str, Score]:
        """Scores the outputs of a test set with everything that the metrics section configures for final scores."""
        settings = self._metrics
        references = _references(store, len(outputs))
        scores = metrics.score(outputs, references, settings, target_language=self._target_language, seed=self._seed)
        return scores | metrics.score_summaries(outputs, _sources(store), references, settings)

    def score_baselines(self, store: TokenStore) -> dict[str, dict[str, Score]]:
        """Scores a test set's baselines and describes its references; empty if the metrics section asks for neither."""
        return metrics.score_baselines(
            _sources(store),
            _references(store, len(store)),
            self._metrics,
            target_language=self._target_language,
            seed=self._seed,
        )


def _references(store: TokenStore, count: int) -> list[tuple[str, ...]]:
    return [store.references(i) for i in range(count)]


def _sources(store: TokenStore) -> list[str]:
    return [store.source_text(i) for i in range(len(store))]


def perplexity(loss: float) -> float:
    """Returns the exponential of a loss in nats per token, at most 1e304; infinite if the loss is not finite."""
    return float(np.exp(min(loss, 700.0))) if math.isfinite(loss) else math.inf
