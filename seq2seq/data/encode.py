"""Encodes examples into a token store, chunk by chunk: memory does not grow with the corpus."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.filters import DUPLICATE, REASONS, Mask, SeenPairs, length_reasons, text_reason
from seq2seq.data.ragged import INT64, IntArray, RaggedArray
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.data.store import LengthLimits, StoreWriter
from seq2seq.tokenizers.pair import Tokenizers

R = TypeVar("R")

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
    limits = LengthLimits(data.max_source_length, data.max_target_length)
    with StoreWriter(folder, tokenizers, limits) as writer:
        encoder = _Encoder(writer, tokenizers, data, training=training)
        # SentencePiece releases the GIL: worker threads encode one chunk each while this thread reads and writes.
        tasks = (encoder.encode_task(chunk) for chunk in _chunks(examples))
        for encoded in _run_in_order(tasks, num_threads=min(_available_cores(), _MAX_THREADS)):
            encoder.add(encoded)
        writer.finish({"report": asdict(encoder.report())})


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


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


@dataclass(frozen=True)
class _Encoded:
    """Encoded examples.

    Attributes:
        examples: B examples.
        corpus_indices: int64 [B] their indices in the corpus.
        source: source ids.
        target: target ids.
    """

    examples: list[Example]
    corpus_indices: IntArray
    source: RaggedArray
    target: RaggedArray

    def select(self, mask: Mask) -> "_Encoded":
        """Returns the examples where `mask` [B] is true."""
        examples = [self.examples[i] for i in np.flatnonzero(mask)]
        return _Encoded(examples, self.corpus_indices[mask], self.source.select(mask), self.target.select(mask))


class _Encoder:
    """Filters, encodes, counts and writes the examples of one corpus."""

    def __init__(self, writer: StoreWriter, tokenizers: Tokenizers, data: DataConfig, *, training: bool):
        self._writer = writer
        self._tokenizers = tokenizers
        self._data = data
        self._training = training
        self._seen = SeenPairs() if training and data.drop_duplicates else None
        self._source_stats = SideCounter(tokenizers.source, limit=data.max_source_length)
        self._target_stats = SideCounter(tokenizers.target, limit=data.max_target_length)
        self._dropped = dict.fromkeys(REASONS, 0)
        self._read = 0
        self._kept = 0

    def encode_task(self, chunk: list[Example]) -> Callable[[], _Encoded]:
        """Filters the next examples by their text; returns a function that encodes those kept, in any thread."""
        corpus_indices = np.arange(self._read, self._read + len(chunk), dtype=INT64)
        self._read += len(chunk)
        self._source_stats.add_texts([example.source for example in chunk])
        self._target_stats.add_texts([example.target for example in chunk])
        if self._training:
            mask = self._text_mask(chunk)
            chunk, corpus_indices = [chunk[i] for i in np.flatnonzero(mask)], corpus_indices[mask]
        return partial(self._encode, chunk, corpus_indices)

    def _encode(self, chunk: list[Example], corpus_indices: IntArray) -> _Encoded:
        source = self._writer.pack_source(self._tokenizers.source.encode_batch([e.source for e in chunk]))
        target = self._writer.pack_target(self._tokenizers.target.encode_batch([e.target for e in chunk]))
        return _Encoded(chunk, corpus_indices, source, target)

    def add(self, encoded: _Encoded) -> None:
        """Filters encoded examples by their lengths, counts and writes them."""
        self._source_stats.add_ids(encoded.source)
        self._target_stats.add_ids(encoded.target)
        if self._training:
            encoded = encoded.select(self._length_mask(encoded.source, encoded.target))
        self._source_stats.add_kept(encoded.source)
        self._target_stats.add_kept(encoded.target)
        self._writer.add_ids(encoded.source, encoded.target)
        self._writer.add_texts(encoded.examples, encoded.corpus_indices)
        self._kept += len(encoded.examples)

    def report(self) -> SplitReport:
        """Reports what was read, dropped and kept so far."""
        dropped = {reason: count for reason, count in self._dropped.items() if count}
        return SplitReport(self._read, self._kept, dropped, self._source_stats.result(), self._target_stats.result())

    def _text_mask(self, chunk: list[Example]) -> Mask:
        """Returns which examples [B] to keep, judging by their text; counts the others."""
        reasons = [text_reason(example, self._data) for example in chunk]
        keep = np.array([reason is None for reason in reasons], dtype=bool)
        for reason in filter(None, reasons):
            self._dropped[reason] += 1
        if self._seen is not None:
            is_new = self._seen.add([chunk[i] for i in np.flatnonzero(keep)])
            self._dropped[DUPLICATE] += int(np.count_nonzero(~is_new))
            keep[keep] = is_new
        return keep

    def _length_mask(self, source: RaggedArray, target: RaggedArray) -> Mask:
        """Returns which examples [B] to keep, judging by their lengths; counts the others."""
        keep = np.ones(len(source.lengths), dtype=bool)
        for reason, mask in length_reasons(source.lengths, target.lengths, self._data).items():
            self._dropped[reason] += int(np.count_nonzero(mask))
            keep &= ~mask
        return keep
