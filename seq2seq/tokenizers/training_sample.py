"""The sentences that a tokenizer is trained on: texts as UTF-8, long ones split, and a uniform sample of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

from seq2seq.tokenizers.base import to_utf8
from seq2seq.tokenizers.subword import MAX_SENTENCE_BYTES

_LOWER_BLOCK = "▅".encode()  # U+2585: SentencePiece's trainer skips every sentence that contains it

T = TypeVar("T")


def reservoir_sample(items: Iterable[T], *, size: int, seed: int) -> list[T]:
    """Draws a uniform sample of at most `size` items in one pass, with only the sample in memory.

    Reservoir sampling (Vitter 1985, algorithm R, doi:10.1145/3147.3165). Returns all items, in order, if there are no
    more than `size`; otherwise the order is arbitrary, and the same for the same seed.
    """
    generator = random.Random(seed)
    sample: list[T] = []
    for count, item in enumerate(items):
        if count < size:
            sample.append(item)
            continue
        index = generator.randrange(count + 1)
        if index < size:
            sample[index] = item
    return sample


def training_sentences(texts: Iterable[str]) -> Iterator[bytes]:
    """Yields the texts that are not blank as UTF-8, in several sentences if longer than `MAX_SENTENCE_BYTES`.

    Raises:
        UserError: A text contains a lone surrogate.
    """
    for text in texts:
        yield from filter(bytes.strip, _split_long(to_utf8(text).replace(_LOWER_BLOCK, b" ")))


def _split_long(data: bytes) -> Iterator[bytes]:
    """Splits UTF-8 text into pieces of at most `MAX_SENTENCE_BYTES`, at a space or else between two characters."""
    start = 0
    while len(data) - start > MAX_SENTENCE_BYTES:
        end = start + MAX_SENTENCE_BYTES
        space = data.rfind(b" ", start + 1, end)
        if space > 0:
            end = space
        while data[end] & 0xC0 == 0x80:  # a UTF-8 continuation byte
            end -= 1
        yield data[start:end]
        start = end
    yield data[start:]
