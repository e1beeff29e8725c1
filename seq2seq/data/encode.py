"""From a stream of examples to a token store, in chunks: memory does not grow with the corpus."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from seq2seq.data.columns import INDEX, Sequences
from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.filters import DUPLICATE, REASONS, Mask, SeenPairs, length_reasons, text_reason
from seq2seq.data.report import SideCounter, SplitReport
from seq2seq.data.store import Limits, StoreWriter
from seq2seq.tokenizer import Tokenizers

_CHUNK_EXAMPLES = 16_384
_CHUNK_CHARS = 4_000_000  # bounds a chunk of long documents; a longer example is a chunk of its own


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
        for chunk in _chunks(examples):
            encoder.add(chunk)
        writer.finish({"report": asdict(encoder.report())})


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    size = 0
    for example in examples:
        length = len(example.source) + sum(map(len, example.references))
        if chunk and (len(chunk) == _CHUNK_EXAMPLES or size + length > _CHUNK_CHARS):
            yield chunk
            chunk, size = [], 0
        chunk.append(example)
        size += length
    if chunk:
        yield chunk


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

    def add(self, chunk: list[Example]) -> None:
        """Takes in the next examples of the corpus."""
        positions = np.arange(self._read, self._read + len(chunk), dtype=INDEX)
        self._read += len(chunk)
        self._source.add_texts([example.source for example in chunk])
        self._target.add_texts([example.target for example in chunk])
        if self._training:
            keep = self._keep_by_text(chunk)
            chunk, positions = [chunk[i] for i in np.flatnonzero(keep)], positions[keep]
        source = self._writer.source_sequences(self._tokenizers.source.encode_batch([e.source for e in chunk]))
        target = self._writer.target_sequences(self._tokenizers.target.encode_batch([e.target for e in chunk]))
        self._source.add_ids(source)
        self._target.add_ids(target)
        if self._training:
            keep = self._keep_by_length(source, target)
            chunk, positions = [chunk[i] for i in np.flatnonzero(keep)], positions[keep]
            source, target = source.select(keep), target.select(keep)
        self._source.add_kept(source)
        self._target.add_kept(target)
        self._writer.add_ids(source, target)
        self._writer.add_texts(chunk, positions)
        self._kept += len(chunk)

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
