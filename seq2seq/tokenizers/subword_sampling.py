"""Subword regularization: random segmentations of text as a pure function of model, texts and seed.

SentencePiece has sampling too, but mixes a random value of the process into every seed (version 0.2.3): it is
reproducible only within a process, and a resumed training would see different tokens. This module samples from the
same distributions with its own generator; normalization and n-best lists are SentencePiece's. Two differences:
`user_symbols` are never split (SentencePiece's unigram sampling may split them), and merges are sampled word by word,
which is equivalent because no piece of our models spans two words.

Thousands of sentences per second, SentencePiece's in parentheses, on the English side of Multi30k with 8,000 pieces and
one process: 35 (32) from all unigram segmentations, 3 (8) from the 64 best, 14 (55) with BPE-dropout.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

from seq2seq.tokenizers.base import UNK_ID

Uniform = Callable[[], float]  # draws from the uniform distribution over [0, 1)

_SPACE = "\u2581"
_UNKNOWN_PENALTY = 10.0  # in SentencePiece's lattice, an unknown character scores this much below the lowest piece
_CACHED_WORDS = 1 << 15
_MAX_CACHED_CHARS = 20  # longer words rarely recur; a text without spaces is one word


def build_sampler(processor: Any, *, alpha: float, nbest: int) -> Sampler:
    """Builds the sampler of a unigram or BPE model.

    Args:
        processor: the model, a `SentencePieceProcessor`.
        alpha: unigram: segmentations are sampled in proportion to p(segmentation)^alpha (Kudo 2018, section 3.2,
            arXiv:1804.10959); bpe: the probability of skipping a merge (Provilkov et al. 2020, arXiv:1910.13267).
        nbest: unigram: number of best segmentations of a text to sample from; -1 samples from all.
    """
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    proto = messages.ModelProto.FromString(processor.serialized_model_proto())
    if proto.trainer_spec.model_type == messages.TrainerSpec.BPE:
        return _BpeDropout(processor, proto.pieces, alpha)
    if nbest == -1:
        return _UnigramLattice(processor, proto.pieces, alpha)
    return _NBestSampler(processor, proto.pieces, alpha, nbest)


class Sampler(ABC):
    """Samples segmentations.

    Args:
        processor: the model.
        pieces: its vocabulary as protobuf messages.
        alpha: see `build_sampler`.
    """

    def __init__(self, processor: Any, pieces: Sequence[Any], alpha: float) -> None:
        self._processor = processor
        self._alpha = alpha
        self._ids = {piece.piece: token for token, piece in enumerate(pieces)}
        # Log probability (unigram) or negative merge rank (bpe) of each normal piece.
        self._scores = {piece.piece: piece.score for piece in pieces if piece.type == piece.NORMAL}
        self._symbols = {piece.piece for piece in pieces if piece.type == piece.USER_DEFINED}

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """Samples one segmentation of each text, in order, with one generator of this seed; returns their ids."""
        generator = random.Random(seed)
        return [self._sample(text, generator) for text in texts]

    @abstractmethod
    def _sample(self, text: str, generator: random.Random) -> list[int]:
        """Samples a segmentation of one text."""


class _NBestSampler(Sampler):
    """Samples from the n best segmentations of a whole text (Kudo 2018, section 3.2)."""

    def __init__(self, processor: Any, pieces: Sequence[Any], alpha: float, nbest: int) -> None:
        super().__init__(processor, pieces, alpha)
        self._nbest = nbest
        self._symbol_ids = {self._ids[symbol] for symbol in self._symbols}
        # Unknown characters are in every candidate, user symbols in every one that is kept: their scores cancel out.
        self._id_scores = [self._scores.get(piece.piece, 0.0) for piece in pieces]

    def _sample(self, text: str, generator: random.Random) -> list[int]:
        candidates: list[list[int]] = self._processor.nbest_encode_as_ids(text, nbest_size=self._nbest)
        # The best segmentation never splits a user symbol; others may.
        num_symbols = self._count_symbols(candidates[0])
        candidates = [ids for ids in candidates if self._count_symbols(ids) == num_symbols]
        logs = [self._alpha * sum(map(self._id_scores.__getitem__, ids)) for ids in candidates]
        highest = max(logs)
        return generator.choices(candidates, [math.exp(log - highest) for log in logs])[0]

    def _count_symbols(self, ids: list[int]) -> int:
        return sum(map(self._symbol_ids.__contains__, ids))


class _WordSampler(Sampler):
    """Samples each word of a text independently."""

    def __init__(self, processor: Any, pieces: Sequence[Any], alpha: float) -> None:
        super().__init__(processor, pieces, alpha)
        longest_first = sorted(self._symbols, key=len, reverse=True)
        symbol = "|".join(map(re.escape, longest_first)) or "(?!)"  # the latter matches nothing
        # A user symbol is a word; other words include the space before them.
        self._word = re.compile(f"{symbol}|{_SPACE}?(?:(?!{symbol})[^{_SPACE}])+|{_SPACE}")
        self._cached_analysis = functools.lru_cache(_CACHED_WORDS)(self._analyse)

    def _sample(self, text: str, generator: random.Random) -> list[int]:
        ids: list[int] = []
        for word in self._word.findall(self._processor.normalize(text)):
            if word in self._symbols:
                ids.append(self._ids[word])
            else:
                analysis = (self._cached_analysis if len(word) <= _MAX_CACHED_CHARS else self._analyse)(word)
                ids += self._sample_word(word, analysis, generator.random)
        # As in SentencePiece, consecutive unknown characters are one unknown token.
        return [token for token, before in zip(ids, [-1, *ids], strict=False) if token != UNK_ID or before != UNK_ID]

    def _piece_ids(self, piece: str) -> list[int]:
        """Returns the id of a piece; for an unknown character the ids of its bytes, or `UNK_ID` for each."""
        if piece in self._ids:
            return [self._ids[piece]]
        return [self._ids.get(f"<0x{byte:02X}>", UNK_ID) for byte in piece.encode()]

    @abstractmethod
    def _analyse(self, word: str) -> Any:
        """Computes the part of sampling that is the same for every sample of a word."""

    @abstractmethod
    def _sample_word(self, word: str, analysis: Any, uniform: Uniform) -> list[int]:
        """Samples a segmentation of a word; returns the ids of its pieces."""


class _UnigramLattice(_WordSampler):
    """Forward filtering and backward sampling over the pieces of a word (Kudo 2018, section 3.2).

    With z(0) = 1 and z(e) = sum of z(s) p(word[s:e])^alpha over the pieces that end at e, the last piece of a
    segmentation of word[:e] starts at s with probability z(s) p(word[s:e])^alpha / z(e).
    """

    def __init__(self, processor: Any, pieces: Sequence[Any], alpha: float) -> None:
        super().__init__(processor, pieces, alpha)
        self._unknown_score = min(self._scores.values()) - _UNKNOWN_PENALTY
        self._max_piece_length = max(map(len, self._scores))

    def _analyse(self, word: str) -> list[tuple[list[int], list[float]]]:
        """Returns for each end the possible starts of the last piece, and the cumulative weights of these starts."""
        lattice = []
        log_z = [0.0]
        for end in range(1, len(word) + 1):
            first = max(0, end - self._max_piece_length)
            starts = [s for s in range(first, end) if s == end - 1 or word[s:end] in self._scores]
            logs = [log_z[s] + self._alpha * self._scores.get(word[s:end], self._unknown_score) for s in starts]
            highest = max(logs)
            cumulative = list(itertools.accumulate(math.exp(log - highest) for log in logs))
            log_z.append(highest + math.log(cumulative[-1]))
            lattice.append((starts, cumulative))
        return lattice

    def _sample_word(self, word: str, analysis: list[tuple[list[int], list[float]]], uniform: Uniform) -> list[int]:
        ids: list[int] = []
        end = len(word)
        while end:
            starts, cumulative = analysis[end - 1]
            start = starts[bisect(cumulative, uniform() * cumulative[-1], hi=len(starts) - 1)]
            ids = self._piece_ids(word[start:end]) + ids
            end = start
        return ids


class _BpeDropout(_WordSampler):
    """BPE with randomly dropped merges (Provilkov et al. 2020).

    As in SentencePiece, a dropped merge becomes a candidate again only when a neighbor changes; in the paper's
    Algorithm 1 all merges are sampled again at each step.
    """

    def _analyse(self, word: str) -> tuple[list[int], int]:
        return self._merge(word, itertools.repeat(False))

    def _sample_word(self, word: str, analysis: tuple[list[int], int], uniform: Uniform) -> list[int]:
        ids, num_merges = analysis
        drops = [uniform() < self._alpha for _ in range(num_merges)]
        if not any(drops):  # the common case
            return ids
        more_drops = (uniform() < self._alpha for _ in itertools.count())  # a dropped merge may lead to others
        return self._merge(word, itertools.chain(drops, more_drops))[0]

    def _merge(self, word: str, drops: Iterator[bool]) -> tuple[list[int], int]:
        """Applies merges, best first and left before right, unless dropped; returns ids and number of merges."""
        # The symbols, at first characters, as spans of the word: from start to end in order, and from end to start.
        ends = {start: start + 1 for start in range(len(word))}
        starts = {end: start for start, end in ends.items()}
        agenda: list[tuple[float, int, int, int]] = []  # candidates: negative score; start, middle and end

        def add_candidate(start: int, middle: int, end: int) -> None:
            score = self._scores.get(word[start:end])
            if score is not None:
                heappush(agenda, (-score, start, middle, end))

        for middle in range(1, len(word)):
            add_candidate(middle - 1, middle, middle + 1)
        num_merges = 0
        while agenda:
            _, start, middle, end = heappop(agenda)
            is_stale = ends.get(start) != middle or ends.get(middle) != end
            if is_stale or next(drops):
                continue
            num_merges += 1
            ends[start], starts[end] = end, start
            del ends[middle]
            if start > 0:
                add_candidate(starts[start], start, end)
            if end < len(word):
                add_candidate(start, end, ends[end])
        ids = [self._piece_ids(word[start:end]) for start, end in ends.items()]
        return list(itertools.chain.from_iterable(ids)), num_merges
