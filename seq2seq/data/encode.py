"""Encodes examples into a token store, chunk by chunk: memory does not grow with the corpus."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TypeVar

import numpy as np

from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.filters import DUPLICATE, REASONS, SeenPairs, length_reasons, text_reason
from seq2seq.data.ragged import RaggedArray
from seq2seq.data.store import StoreWriter, pack
from seq2seq.tokenizers.pair import Tokenizers

R = TypeVar("R")
_Encoded = tuple[list[Example], RaggedArray, RaggedArray]  # examples, and the ids of their sources and targets

_CHUNK_EXAMPLES = 4_096
_MAX_THREADS = 8  # more would wait for the thread that reads and writes
_CHUNK_CHARS = 1_000_000  # bounds a chunk of long documents; a longer example gets a chunk of its own


def write_store(
    folder: Path,
    examples: Iterable[Example],
    tokenizers: Tokenizers,
    data: DataConfig,
    *,
    training: bool,
) -> None:
    """Encodes examples into a store in an existing, empty folder.

    Args:
        folder: the folder to write to.
        examples: the whole corpus, in order.
        tokenizers: the tokenizers of both sides.
        data: length limits and filters.
        training: whether to filter the examples; otherwise all are kept, even blank ones, and long ones are cut.
    """
    limits = (data.max_source_length, data.max_target_length)
    with closing(StoreWriter(folder, tokenizers, limits)) as writer:
        encoder = _Encoder(writer, tokenizers, data, training=training)
        # SentencePiece releases the GIL: worker threads encode one chunk each while this thread reads and writes.
        tasks = (encoder.encode_task(chunk) for chunk in _chunks(examples))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for examples_and_ids in _run_in_order(tasks, num_threads=min(cores, _MAX_THREADS)):
            encoder.add(*examples_and_ids)
        encoder.finish()


def _run_in_order(tasks: Iterable[Callable[[], R]], *, num_threads: int) -> Iterator[R]:
    """Runs tasks in a thread pool and yields their results in order, submitting only a few tasks ahead."""
    pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="encoding")
    futures: deque[Future[R]] = deque()
    try:
        for task in tasks:
            futures.append(pool.submit(task))
            if len(futures) > num_threads:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    size = 0
    for example in examples:
        length = len(example.source) + len(example.target)
        if chunk and (len(chunk) == _CHUNK_EXAMPLES or size + length > _CHUNK_CHARS):
            yield chunk
            chunk, size = [], 0
        chunk.append(example)
        size += length
    if chunk:
        yield chunk


class _Encoder:
    """Filters, encodes, counts and writes the examples of one corpus."""

    def __init__(self, writer: StoreWriter, tokenizers: Tokenizers, data: DataConfig, *, training: bool):
        self._writer = writer
        self._tokenizers = tokenizers
        self._data = data
        self._training = training
        self._seen = SeenPairs() if training and data.drop_duplicates else None
        self._dropped = Counter(dict.fromkeys(REASONS, 0))
        self._read = 0

    def encode_task(self, chunk: list[Example]) -> Callable[[], _Encoded]:
        """Filters the next examples by their text; returns a function that encodes those kept, in any thread."""
        self._read += len(chunk)
        source, target = self._writer.counters
        source.add_texts([example.source for example in chunk])
        target.add_texts([example.target for example in chunk])
        return partial(self._encode, self._filter(chunk) if self._training else chunk)

    def _filter(self, chunk: list[Example]) -> list[Example]:
        """Returns the examples to keep, judging by their text; counts the others."""
        reasons = [text_reason(example, self._data) for example in chunk]
        self._dropped.update(filter(None, reasons))
        kept = [example for example, reason in zip(chunk, reasons, strict=True) if reason is None]
        if self._seen is None:
            return kept
        first = list(compress(kept, self._seen.add(kept)))
        self._dropped[DUPLICATE] += len(kept) - len(first)
        return first

    def _encode(self, examples: list[Example]) -> _Encoded:
        source, target = self._tokenizers.source, self._tokenizers.target
        return (
            examples,
            pack(source.encode_batch([example.source for example in examples]), source),
            pack(target.encode_batch([example.target for example in examples]), target),
        )

    def add(self, examples: list[Example], source: RaggedArray, target: RaggedArray) -> None:
        """Filters encoded examples by their lengths, counts and writes them."""
        for counter, ids in zip(self._writer.counters, (source, target), strict=True):
            counter.add_ids(ids)
        if self._training:
            reasons = length_reasons(source.lengths, target.lengths, self._data)
            self._dropped.update(reasons[reasons != ""].tolist())
            kept = np.flatnonzero(reasons == "")
            examples = [examples[index] for index in kept]
            source, target = source.gather(kept), target.gather(kept)
        self._writer.add_ids(source, target)
        self._writer.add_texts(examples)

    def finish(self) -> None:
        """Completes the store with the report of what was read and dropped."""
        self._writer.finish(read=self._read, dropped={reason: n for reason, n in self._dropped.items() if n})
