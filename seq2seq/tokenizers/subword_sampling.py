"""Subword regularization: random segmentations of text as a pure function of model, texts and seed.

SentencePiece has sampling too, but mixes a random value of the process into every seed (version 0.2.3): it is
reproducible only within a process, and a resumed training would see different tokens. This module samples from the
same distributions with its own generator; normalization and n-best lists are SentencePiece's. Two differences:
`user_symbols` are never split (SentencePiece's unigram sampling may split them), and merges are sampled word by word,
which is equivalent because no piece of our models spans two words.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

import sentencepiece

from seq2seq.tokenizers.base import UNK_ID

_SPACE = "\u2581"
_WORD = re.compile(f"{_SPACE}[^{_SPACE}]*|[^{_SPACE}]+")
_UNKNOWN_PENALTY = 10.0  # in SentencePiece's lattice, an unknown character scores this much below the lowest piece
_CACHED_WORDS = 1 << 15
_MAX_CACHED_CHARS = 20  # longer words rarely recur; a text without spaces is one word

Ids = tuple[int, ...]
Uniform = Callable[[], float]  # draws from the uniform distribution over [0, 1)


def build_sampler(model: bytes, *, alpha: float, nbest: int) -> Sampler:
    """Builds the sampler of a unigram or BPE model.

    Args:
        model: a serialized SentencePiece model.
        alpha: unigram: segmentations are sampled in proportion to p(segmentation)^alpha (Kudo 2018, section 3.2,
            arXiv:1804.10959); bpe: the probability of skipping a merge (Provilkov et al. 2020, arXiv:1910.13267).
        nbest: unigram: number of best segmentations of a text to sample from; -1 samples from all.
    """
    pieces = _Pieces(model)
    if pieces.is_bpe:
        return _PerWordSampler(pieces, _BpeDropout(pieces, alpha))
    if nbest == -1:
        return _PerWordSampler(pieces, _UnigramLattice(pieces, alpha))
    return _NBestSampler(pieces, alpha, nbest)


class Sampler(Protocol):
    """Samples segmentations."""

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """Samples one segmentation of each text, in order, with one generator of this seed; returns their ids."""


class _Pieces:
    """The vocabulary of a model.

    Attributes:
        processor: the model.
        is_bpe: whether it is a BPE model, not a unigram one.
        scores: log probability (unigram) or negative merge rank (bpe) of each normal piece.
        symbols: ids of the user symbols.
    """

    def __init__(self, model: bytes) -> None:
        from sentencepiece import sentencepiece_model_pb2

        messages: Any = sentencepiece_model_pb2
        proto = messages.ModelProto.FromString(model)
        kinds = messages.ModelProto.SentencePiece
        self.processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.is_bpe: bool = proto.trainer_spec.model_type == messages.TrainerSpec.BPE
        self.scores: dict[str, float] = {p.piece: p.score for p in proto.pieces if p.type == kinds.NORMAL}
        self.symbols = {p.piece: i for i, p in enumerate(proto.pieces) if p.type == kinds.USER_DEFINED}
        self._ids = {p.piece: (i,) for i, p in enumerate(proto.pieces) if p.type in (kinds.NORMAL, kinds.USER_DEFINED)}
        self._bytes = {int(p.piece[3:5], 16): i for i, p in enumerate(proto.pieces) if p.type == kinds.BYTE}

    def ids(self, piece: str) -> Ids:
        """Returns the id of a piece; for an unknown character the ids of its bytes, or `UNK_ID`."""
        ids = self._ids.get(piece)
        if ids is not None:
            return ids
        return tuple(self._bytes[byte] for byte in piece.encode()) if self._bytes else (UNK_ID,)


class _WordSampler(Protocol):
    """Samples segmentations of single words."""

    def sample(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """Samples a segmentation and returns the ids of its pieces."""


class _PerWordSampler:
    """Samples each word of a text independently."""

    def __init__(self, pieces: _Pieces, word_sampler: _WordSampler) -> None:
        self._pieces = pieces
        self._word_sampler = word_sampler
        longest_first = sorted(pieces.symbols, key=len, reverse=True)
        self._symbol = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Sampler.sample_batch`."""
        uniform = random.Random(seed).random
        return [self._sample(text, uniform) for text in self._pieces.processor.normalize(list(texts))]

    def _sample(self, text: str, uniform: Uniform) -> list[int]:
        segmentations = (self._word_sampler.sample(word, uniform) for word in self._split(text))
        ids = list(itertools.chain.from_iterable(itertools.chain.from_iterable(segmentations)))
        # As in SentencePiece, consecutive unknown characters are one unknown token.
        return [token for token, before in zip(ids, [-1, *ids], strict=False) if token != UNK_ID or before != UNK_ID]

    def _split(self, text: str) -> Iterator[str]:
        """Splits normalized text into words, each with the space before it; a user symbol is a word."""
        if self._symbol is None:
            yield from _WORD.findall(text)
            return
        for part in self._symbol.split(text):
            if part in self._pieces.symbols:
                yield part
            else:
                yield from _WORD.findall(part)


class _UnigramLattice:
    """Forward filtering and backward sampling over the pieces of a word (Kudo 2018, section 3.2).

    With z(0) = 1 and z(e) = sum of z(s) p(word[s:e])^alpha over the pieces that end at e, the last piece of a
    segmentation of word[:e] starts at s with probability z(s) p(word[s:e])^alpha / z(e).
    """

    def __init__(self, pieces: _Pieces, alpha: float) -> None:
        self._pieces = pieces
        self._alpha = alpha
        self._unknown_score = min(pieces.scores.values()) - _UNKNOWN_PENALTY
        self._max_piece_length = max(map(len, pieces.scores))
        self._cached_lattice = functools.lru_cache(_CACHED_WORDS)(self._lattice)

    def sample(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """See `_WordSampler.sample`."""
        if word in self._pieces.symbols:
            return (self._pieces.ids(word),)
        lattice = (self._cached_lattice if len(word) <= _MAX_CACHED_CHARS else self._lattice)(word)
        segmentation = []
        end = len(word)
        while end:
            cumulative, starts = lattice[end - 1]
            start = starts[_sample_index(cumulative, uniform)]
            segmentation.append(self._pieces.ids(word[start:end]))
            end = start
        return reversed(segmentation)

    def _lattice(self, word: str) -> list[tuple[list[float], list[int]]]:
        """Returns for each end the cumulative weights of the possible starts of the last piece, and these starts."""
        lattice = []
        log_z = [0.0]
        for end in range(1, len(word) + 1):
            starts, logs = [], []
            for start in range(max(0, end - self._max_piece_length), end):
                score = self._pieces.scores.get(word[start:end])
                if score is None and start == end - 1:
                    score = self._unknown_score
                if score is not None:
                    starts.append(start)
                    logs.append(log_z[start] + self._alpha * score)
            highest = max(logs)
            cumulative = list(itertools.accumulate(math.exp(log - highest) for log in logs))
            log_z.append(highest + math.log(cumulative[-1]))
            lattice.append((cumulative, starts))
        return lattice


class _BpeDropout:
    """BPE with randomly dropped merges (Provilkov et al. 2020).

    As in SentencePiece, a dropped merge becomes a candidate again only when a neighbor changes; in the paper's
    Algorithm 1 all merges are sampled again at each step.
    """

    def __init__(self, pieces: _Pieces, alpha: float) -> None:
        self._pieces = pieces
        self._alpha = alpha
        self._cached_encode = functools.lru_cache(_CACHED_WORDS)(self._encode)

    def sample(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """See `_WordSampler.sample`."""
        if word in self._pieces.symbols:
            return (self._pieces.ids(word),)
        ids, num_merges = (self._cached_encode if len(word) <= _MAX_CACHED_CHARS else self._encode)(word)
        drops = [uniform() < self._alpha for _ in range(num_merges)]
        if True not in drops:  # the common case: no merge is dropped
            return ids
        more_drops = (uniform() < self._alpha for _ in itertools.count())  # a dropped merge may lead to others
        return self._merge(word, itertools.chain(drops, more_drops))[0]

    def _encode(self, word: str) -> tuple[list[Ids], int]:
        return self._merge(word, itertools.repeat(False))

    def _merge(self, word: str, drops: Iterator[bool]) -> tuple[list[Ids], int]:
        """Applies merges, best first and left before right, unless dropped; returns ids and number of merges."""
        scores = self._pieces.scores
        symbols = list(word)
        next_index = list(range(1, len(word) + 1))  # index of the next symbol; 0: merged into the one before
        prev_index = list(range(-1, len(word) - 1))

        def candidates(left: int) -> Iterator[tuple[float, int, int, str]]:
            if left >= 0 and (right := next_index[left]) < len(symbols):
                score = scores.get(symbols[left] + symbols[right])
                if score is not None:
                    yield -score, left, right, symbols[left] + symbols[right]

        agenda = list(itertools.chain.from_iterable(map(candidates, range(len(symbols)))))
        heapify(agenda)
        num_merges = 0
        while agenda:
            _, left, right, piece = heappop(agenda)
            is_stale = next_index[left] != right or len(symbols[left]) + len(symbols[right]) != len(piece)
            if is_stale or next(drops):
                continue
            num_merges += 1
            symbols[left] = piece
            next_index[left], next_index[right] = next_index[right], 0
            if next_index[left] < len(symbols):
                prev_index[next_index[left]] = left
            for candidate in itertools.chain(candidates(prev_index[left]), candidates(left)):
                heappush(agenda, candidate)
        return [self._pieces.ids(symbol) for symbol, nxt in zip(symbols, next_index, strict=True) if nxt], num_merges


class _NBestSampler:
    """Samples from the n best segmentations of a whole text (Kudo 2018, section 3.2)."""

    def __init__(self, pieces: _Pieces, alpha: float, nbest: int) -> None:
        self._processor = pieces.processor
        self._alpha = alpha
        self._nbest = nbest
        self._symbols = set(pieces.symbols.values())
        # Unknown characters are in every candidate, user symbols in every one that is kept: their scores cancel out.
        self._scores = [
            pieces.scores.get(self._processor.id_to_piece(i), 0.0) for i in range(self._processor.vocab_size())
        ]

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Sampler.sample_batch`."""
        uniform = random.Random(seed).random
        return [self._sample(text, uniform) for text in texts]

    def _sample(self, text: str, uniform: Uniform) -> list[int]:
        candidates: list[list[int]] = self._processor.nbest_encode_as_ids(text, nbest_size=self._nbest)
        if not candidates:
            return []
        if self._symbols:
            # The best segmentation never splits a user symbol; others may.
            num_symbols = self._count_symbols(candidates[0])
            candidates = [ids for ids in candidates if self._count_symbols(ids) == num_symbols]
        logs = [self._alpha * sum(self._scores[token] for token in ids) for ids in candidates]
        highest = max(logs)
        cumulative = list(itertools.accumulate(math.exp(log - highest) for log in logs))
        return candidates[_sample_index(cumulative, uniform)]

    def _count_symbols(self, ids: list[int]) -> int:
        return sum(token in self._symbols for token in ids)


def _sample_index(cumulative: list[float], uniform: Uniform) -> int:
    """Samples an index, given the cumulative sums of the weights."""
    return bisect(cumulative, uniform() * cumulative[-1], hi=len(cumulative) - 1)
