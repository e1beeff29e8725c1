"""Random segmentations of text into subwords, as a pure function of model, texts and seed.

SentencePiece can sample by itself, but its generators are salted anew in every process (version 0.2.3): the seed
makes a run repeat within a process and not beyond, so that a resumed training would see other tokens. Here the same
distributions are drawn with a generator of our own; normalisation and the n-best lists are SentencePiece's. Two
things differ: `user_symbols` always stay whole (SentencePiece's unigram sampling may split them), and a text is
drawn word by word, which is the same because no piece of our models goes beyond the end of a word.
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
_UNKNOWN_PENALTY = 10.0  # log probability that SentencePiece's lattice puts an unknown character below any piece
_CACHED_WORDS = 1 << 15
_CACHED_CHARS = 20  # a longer word is hardly met again; a text without spaces is one word

Ids = tuple[int, ...]
Uniform = Callable[[], float]  # the next number from [0, 1)


def build_sampler(model: bytes, *, alpha: float, nbest: int) -> Sampler:
    """The sampler of a unigram or BPE model.

    Args:
        model: a serialised SentencePiece model.
        alpha: unigram: segmentations are drawn with p(segmentation)^alpha, normalised (Kudo 2018, section 3.2,
            arXiv:1804.10959); bpe: the probability to leave out a merge (Provilkov et al. 2020, arXiv:1910.13267).
        nbest: unigram: draws from so many best segmentations of a text; -1 from all.
    """
    pieces = _Pieces(model)
    if pieces.is_bpe:
        return _WordwiseSampler(pieces, _BpeDropout(pieces, alpha))
    if nbest == -1:
        return _WordwiseSampler(pieces, _UnigramLattice(pieces, alpha))
    return _NBestSampler(pieces, alpha, nbest)


class Sampler(Protocol):
    """Draws segmentations."""

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """Ids of one segmentation of each text, drawn in order from one generator with this seed."""


class _Pieces:
    """The vocabulary of a model.

    Attributes:
        processor: the model.
        is_bpe: whether it is a BPE model, not a unigram one.
        scores: log probability (unigram) or minus the rank (bpe) of each ordinary piece.
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
        """The id of a piece; of an unknown character its bytes', or `UNK_ID`."""
        known = self._ids.get(piece)
        if known is not None:
            return known
        return tuple(self._bytes[byte] for byte in piece.encode()) if self._bytes else (UNK_ID,)


class _Words(Protocol):
    """How one word is drawn."""

    def draw(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """The ids of the pieces of a segmentation."""


class _WordwiseSampler:
    """Draws each word of a text by itself."""

    def __init__(self, pieces: _Pieces, words: _Words) -> None:
        self._pieces = pieces
        self._words = words
        longest_first = sorted(pieces.symbols, key=len, reverse=True)
        self._symbol = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Sampler.sample_batch`."""
        uniform = random.Random(seed).random
        return [self._sample(text, uniform) for text in self._pieces.processor.normalize(list(texts))]

    def _sample(self, text: str, uniform: Uniform) -> list[int]:
        drawn = (self._words.draw(word, uniform) for word in self._split(text))
        ids = list(itertools.chain.from_iterable(itertools.chain.from_iterable(drawn)))
        # As SentencePiece does, a run of unknown characters is one unknown token.
        return [token for token, before in zip(ids, [-1, *ids], strict=False) if token != UNK_ID or before != UNK_ID]

    def _split(self, text: str) -> Iterator[str]:
        """The words of normalised text, each with the space before it; a user symbol is a word."""
        if self._symbol is None:
            yield from _WORD.findall(text)
            return
        for part in self._symbol.split(text):
            if part in self._pieces.symbols:
                yield part
            else:
                yield from _WORD.findall(part)


class _UnigramLattice:
    """Forward filtering, backward sampling over the pieces of a word (Kudo 2018, section 3.2).

    With z(0) = 1 and z(e) = sum of z(s) p(word[s:e])^alpha over the pieces that end at e, the last piece of a
    segmentation of word[:e] starts at s with probability z(s) p(word[s:e])^alpha / z(e).
    """

    def __init__(self, pieces: _Pieces, alpha: float) -> None:
        self._pieces = pieces
        self._alpha = alpha
        self._unknown = min(pieces.scores.values()) - _UNKNOWN_PENALTY
        self._longest = max(map(len, pieces.scores))
        self._cached = functools.lru_cache(_CACHED_WORDS)(self._lattice)

    def draw(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """See `_Words.draw`."""
        if word in self._pieces.symbols:
            return (self._pieces.ids(word),)
        lattice = (self._cached if len(word) <= _CACHED_CHARS else self._lattice)(word)
        drawn = []
        end = len(word)
        while end:
            cumulative, starts = lattice[end - 1]
            start = starts[_place(cumulative, uniform)]
            drawn.append(self._pieces.ids(word[start:end]))
            end = start
        return reversed(drawn)

    def _lattice(self, word: str) -> list[tuple[list[float], list[int]]]:
        """For each end the possible starts of the last piece, and the running sums of their weights."""
        lattice = []
        log_z = [0.0]
        for end in range(1, len(word) + 1):
            starts, logs = [], []
            for start in range(max(0, end - self._longest), end):
                score = self._pieces.scores.get(word[start:end])
                if score is None and start == end - 1:
                    score = self._unknown
                if score is not None:
                    starts.append(start)
                    logs.append(log_z[start] + self._alpha * score)
            highest = max(logs)
            cumulative = list(itertools.accumulate(math.exp(log - highest) for log in logs))
            log_z.append(highest + math.log(cumulative[-1]))
            lattice.append((cumulative, starts))
        return lattice


class _BpeDropout:
    """BPE whose merges are left out at random (Provilkov et al. 2020).

    As in SentencePiece, a merge that was left out comes back only when a neighbour changes; in the paper's
    Algorithm 1 all are drawn anew before each merge.
    """

    def __init__(self, pieces: _Pieces, alpha: float) -> None:
        self._pieces = pieces
        self._alpha = alpha
        self._cached = functools.lru_cache(_CACHED_WORDS)(self._encode)

    def draw(self, word: str, uniform: Uniform) -> Iterable[Ids]:
        """See `_Words.draw`."""
        if word in self._pieces.symbols:
            return (self._pieces.ids(word),)
        whole, merges = (self._cached if len(word) <= _CACHED_CHARS else self._encode)(word)
        drops = [uniform() < self._alpha for _ in range(merges)]
        if True not in drops:  # most words: there is nothing to work out
            return whole
        return self._merge(word, itertools.chain(drops, iter(lambda: uniform() < self._alpha, None)))[0]

    def _encode(self, word: str) -> tuple[list[Ids], int]:
        return self._merge(word, itertools.repeat(False))

    def _merge(self, word: str, drops: Iterator[bool]) -> tuple[list[Ids], int]:
        """The ids after all merges, best first and left before right, that are not dropped; and their number."""
        scores = self._pieces.scores
        symbols = list(word)
        following = list(range(1, len(word) + 1))  # index of the symbol behind; 0: merged into the one before
        previous = list(range(-1, len(word) - 1))

        def candidates(left: int) -> Iterator[tuple[float, int, int, str]]:
            if left >= 0 and (right := following[left]) < len(symbols):
                score = scores.get(symbols[left] + symbols[right])
                if score is not None:
                    yield -score, left, right, symbols[left] + symbols[right]

        agenda = list(itertools.chain.from_iterable(map(candidates, range(len(symbols)))))
        heapify(agenda)
        merges = 0
        while agenda:
            _, left, right, piece = heappop(agenda)
            outdated = following[left] != right or len(symbols[left]) + len(symbols[right]) != len(piece)
            if outdated or next(drops):
                continue
            merges += 1
            symbols[left] = piece
            following[left], following[right] = following[right], 0
            if following[left] < len(symbols):
                previous[following[left]] = left
            for candidate in itertools.chain(candidates(previous[left]), candidates(left)):
                heappush(agenda, candidate)
        return [self._pieces.ids(symbol) for symbol, behind in zip(symbols, following, strict=True) if behind], merges


class _NBestSampler:
    """Draws from the n best segmentations of a whole text (Kudo 2018, section 3.2)."""

    def __init__(self, pieces: _Pieces, alpha: float, nbest: int) -> None:
        self._processor = pieces.processor
        self._alpha = alpha
        self._nbest = nbest
        self._symbols = set(pieces.symbols.values())
        # Unknown characters and user symbols are in all candidates: their scores cancel out.
        self._scores = [
            pieces.scores.get(self._processor.id_to_piece(i), 0.0) for i in range(self._processor.vocab_size())
        ]

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Sampler.sample_batch`."""
        uniform = random.Random(seed).random
        return [self._draw(text, uniform) for text in texts]

    def _draw(self, text: str, uniform: Uniform) -> list[int]:
        candidates: list[list[int]] = self._processor.nbest_encode_as_ids(text, nbest_size=self._nbest)
        if not candidates:
            return []
        if self._symbols:
            whole = self._count_symbols(candidates[0])
            candidates = [ids for ids in candidates if self._count_symbols(ids) == whole]
        logs = [self._alpha * sum(self._scores[token] for token in ids) for ids in candidates]
        highest = max(logs)
        cumulative = list(itertools.accumulate(math.exp(log - highest) for log in logs))
        return candidates[_place(cumulative, uniform)]

    def _count_symbols(self, ids: list[int]) -> int:
        return sum(token in self._symbols for token in ids)


def _place(cumulative: list[float], uniform: Uniform) -> int:
    """A random index, given the running sums of the weights."""
    return bisect(cumulative, uniform() * cumulative[-1], hi=len(cumulative) - 1)
