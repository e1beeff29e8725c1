"""Searches and scores in a process whose address space is limited: `python little_memory.py FOLDER`.

Prints, as JSON, what the work gives within the limit and what it gives in small batches without it, how often memory
ran out, and the error of a source that does not fit alone.
"""

import json
import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from seq2seq.data.corpus import CorpusConfig, DataConfig
from seq2seq.data.prepare import open_corpus
from seq2seq.errors import TrainingError
from seq2seq.inference.evaluator import Evaluator
from seq2seq.metrics import MetricsConfig
from seq2seq.models.build import build_model
from seq2seq.models.transformer_config import TransformerConfig
from seq2seq.pipeline.build import vocabulary
from seq2seq.search.config import SearchConfig
from seq2seq.system.config import Device, Precision
from seq2seq.system.device import build_runtime
from seq2seq.tokenizers.config import TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.pair import train_tokenizers

LINES = [f"{number} {'abcdefgh' * (4 + number % 3)}" for number in range(1500)]


@contextmanager
def megabytes_left(megabytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    folder = Path(sys.argv[1])
    logging.basicConfig(format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    (folder / "text").write_text("".join(f"{line}\n" for line in LINES))
    tokenizers = train_tokenizers(lambda: LINES, lambda: LINES, TokenizerConfig(kind=TokenizerKind.char), seed=1)
    settings = TransformerConfig(d_model=16, d_ff=2048, num_heads=2, encoder_layers=1, decoder_layers=1)
    model = build_model(settings, vocabulary(tokenizers)).eval()
    runtime = build_runtime(Device.cpu, Precision.fp32)
    data = DataConfig(root=str(folder), max_source_length=50_000)
    store = open_corpus(CorpusConfig(source="text", target="text"), tokenizers, data, key="data.test.text")

    def evaluator(*, batch_size: int, batch_tokens: int) -> Evaluator:
        search = SearchConfig(beam_size=2, max_length=3, batch_size=batch_size, batch_tokens=10**6)
        return Evaluator(
            tokenizers, search=search, metrics=MetricsConfig(), target_language=None, batch_tokens=batch_tokens,
            max_source_length=50_000, seed=1, runtime=runtime,
        )  # fmt: skip

    def scores(evaluator: Evaluator) -> list[float]:
        found = evaluator.generator([model]).generate_nbest(LINES)
        return [outputs[0].score for outputs in found]

    few, many = evaluator(batch_size=50, batch_tokens=2000), evaluator(batch_size=1500, batch_tokens=10**6)
    results: dict[str, dict[str, object]] = {}
    results |= {"search": {"expected": scores(few)}, "loss": {"expected": few.loss(model, store)["loss"]}}
    with megabytes_left(100):
        try:
            many.generator([model]).generate(["abcdefgh" * 5000])
        except TrainingError as error:
            results["long"] = {"error": str(error)}
    with megabytes_left(200):
        results["search"]["found"] = scores(many)
    with megabytes_left(200):
        results["loss"]["found"] = many.loss(model, store)["loss"]
    results["search"]["failures"] = many.search_splitter.failures
    results["loss"]["failures"] = many.loss_splitter.failures
    print(json.dumps(results))


if __name__ == "__main__":
    main()
