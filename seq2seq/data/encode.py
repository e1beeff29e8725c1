"""Encodes examples into a token store, chunk by chunk: memory does not grow with the corpus."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from seq2seq.data.corpus import DataConfig, Example
from seq2seq.data.filters import UNREADABLE, TrainingFilter
from seq2seq.data.ragged import RaggedArray
from seq2seq.data.store import StoreWriter, pack
from seq2seq.data.text import chunks
from seq2seq.data.unreadable import UnreadableRecords
from seq2seq.tokenizers.pair import Tokenizers

R = TypeVar("R")
_Encoded = tuple[list[Example], RaggedArray, RaggedArray]  # examples, and the ids of their sources and targets

_CHUNK_EXAMPLES = 4_096
_MAX_THREADS = 8  # more would wait for the thread that reads and writes
_CHUNK_CHARS = 1_000_000  # bounds a chunk of long documents


def write_store(
    folder: Path,
    examples: Iterable[Example],
    tokenizers: Tokenizers,
    data: DataConfig,
    *,
    training: bool,
    unreadable: UnreadableRecords | None = None,
) -> None:
    """Encodes examples into a store in an existing, empty folder.

    Args:
        folder: the folder to write to.
        examples: the whole corpus, in order.
        tokenizers: the tokenizers of both sides.
        data: length limits and filters.
        training: whether to filter the examples; otherwise all are kept, even blank ones, and long ones are cut.
        unreadable: the records that the corpus was read without, for the report; complete after the last example.
    """
    training_filter = TrainingFilter(data) if training else None
    limits = (data.max_source_length, data.max_target_length)
    with closing(StoreWriter(folder, tokenizers, limits)) as writer:

        def encode_task(chunk: list[Example]) -> Callable[[], _Encoded]:
            writer.count_texts([example.source for example in chunk], [example.target for example in chunk])
            return partial(_encode, training_filter.by_text(chunk) if training_filter else chunk, tokenizers)

        tasks = map(encode_task, chunks(examples, _CHUNK_EXAMPLES, _CHUNK_CHARS, length=_length))
        # SentencePiece releases the GIL: worker threads encode one chunk each while this thread reads and writes.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for encoded, source, target in _run_in_order(tasks, num_threads=min(cores, _MAX_THREADS)):
            kept = training_filter.by_length(source.lengths, target.lengths) if training_filter else None
            writer.add_ids(source, target, kept)
            writer.add_texts(encoded if kept is None else [encoded[index] for index in kept])
        dropped = dict(+training_filter.dropped) if training_filter else {}
        if unreadable is not None and unreadable.count:
            dropped[UNREADABLE] = unreadable.count
        writer.finish(dropped, unreadable.named if unreadable is not None else [])


def _length(example: Example) -> int:
    return len(example.source) + len(example.target)


def _encode(examples: list[Example], tokenizers: Tokenizers) -> _Encoded:
    source, target = tokenizers.source, tokenizers.target
    return (
        examples,
        pack(source.encode_batch([example.source for example in examples]), source),
        pack(target.encode_batch([example.target for example in examples]), target),
    )


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
