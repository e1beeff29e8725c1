"""From a stream of examples to a token store, in chunks: memory does not grow with the corpus."""

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
from seq2seq.data.ragged import INDEX, Index, Sequences
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.data.store import Limits, StoreWriter
from seq2seq.tokenizers.pair import Tokenizers

R = TypeVar("R")

_CHUNK_EXAMPLES = 4_096
_MOST_THREADS = 8  # more would wait for the one that reads and writes
_CHUNK_CHARS = 1_000_000  # bounds a chunk of long documents; a longer example is a chunk of its own


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
        folder: where.
        examples: the whole corpus in order.
        tokenizers: encode both sides.
        data: limits and filters.
        training: filters the examples; otherwise all are kept, blank ones too, and what is too long is cut.
    """
    limits = Limits(data.max_source_length, data.max_target_length)
    with StoreWriter(folder, tokenizers, limits) as writer:
        encoder = _Encoder(writer, tokenizers, data, training=training)
        # SentencePiece holds no lock of Python's: each core encodes a chunk, while one reads and writes in between.
        tasks = (encoder.encoding(chunk) for chunk in _chunks(examples))
        for encoded in _in_order(tasks, at_once=min(_available_cores(), _MOST_THREADS)):
            encoder.add(encoded)
        writer.finish({"report": asdict(encoder.report())})


def _in_order(tasks: Iterable[Callable[[], R]], *, at_once: int) -> Iterator[R]:
    """The results of the tasks in order; some run in threads while the caller works on the results before."""
    threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="encoding")
    started: deque[Future[R]] = deque()
    try:
        for task in tasks:
            started.append(threads.submit(task))
            if len(started) > at_once:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


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
        positions: int64 [B] their numbers in the corpus.
        source: their ids.
        target: their ids.
    """

    examples: list[Example]
    positions: Index
    source: Sequences
    target: Sequences

    def select(self, keep: Mask) -> "_Encoded":
        """The examples where `keep` [B] is true."""
        examples = [self.examples[i] for i in np.flatnonzero(keep)]
        return _Encoded(examples, self.positions[keep], self.source.select(keep), self.target.select(keep))


class _Encoder:
    """Filters, encodes, counts and writes."""

    def __init__(self, writer: StoreWriter, tokenizers: Tokenizers, data: DataConfig, *, training: bool):
        self._writer = writer
        self._tokenizers = tokenizers
        self._data = data
        self._training = training
        self._seen = SeenPairs() if training and data.drop_duplicates else None
        self._source = SideCounter(tokenizers.source, limit=data.max_source_length)
        self._target = SideCounter(tokenizers.target, limit=data.max_target_length)
        self._dropped = dict.fromkeys(REASONS, 0)
        self._read = 0
        self._kept = 0

    def encoding(self, chunk: list[Example]) -> Callable[[], _Encoded]:
        """Takes in the next examples of the corpus; what is left to do is to call the result, in any thread."""
        positions = np.arange(self._read, self._read + len(chunk), dtype=INDEX)
        self._read += len(chunk)
        self._source.add_texts([example.source for example in chunk])
        self._target.add_texts([example.target for example in chunk])
        if self._training:
            keep = self._keep_by_text(chunk)
            chunk, positions = [chunk[i] for i in np.flatnonzero(keep)], positions[keep]
        return partial(self._encode, chunk, positions)

    def _encode(self, chunk: list[Example], positions: Index) -> _Encoded:
        source = self._writer.source_sequences(self._tokenizers.source.encode_batch([e.source for e in chunk]))
        target = self._writer.target_sequences(self._tokenizers.target.encode_batch([e.target for e in chunk]))
        return _Encoded(chunk, positions, source, target)

    def add(self, encoded: _Encoded) -> None:
        """Counts and writes."""
        self._source.add_ids(encoded.source)
        self._target.add_ids(encoded.target)
        if self._training:
            encoded = encoded.select(self._keep_by_length(encoded.source, encoded.target))
        self._source.add_kept(encoded.source)
        self._target.add_kept(encoded.target)
        self._writer.add_ids(encoded.source, encoded.target)
        self._writer.add_texts(encoded.examples, encoded.positions)
        self._kept += len(encoded.examples)

    def report(self) -> SplitReport:
        """What was read, dropped and kept so far."""
        dropped = {reason: count for reason, count in self._dropped.items() if count}
        return SplitReport(self._read, self._kept, dropped, self._source.result(), self._target.result())

    def _keep_by_text(self, chunk: list[Example]) -> Mask:
        reasons = [text_reason(example, self._data) for example in chunk]
        keep = np.array([reason is None for reason in reasons], dtype=bool)
        for reason in filter(None, reasons):
            self._dropped[reason] += 1
        if self._seen is not None:
            fresh = self._seen.add([chunk[i] for i in np.flatnonzero(keep)])
            self._dropped[DUPLICATE] += int(np.count_nonzero(~fresh))
            keep[keep] = fresh
        return keep

    def _keep_by_length(self, source: Sequences, target: Sequences) -> Mask:
        keep = np.ones(len(source.lengths), dtype=bool)
        for reason, mask in length_reasons(source.lengths, target.lengths, self._data).items():
            self._dropped[reason] += int(np.count_nonzero(mask))
            keep &= ~mask
        return keep
