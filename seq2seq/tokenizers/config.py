"""The config section `tokenizer`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum

from seq2seq.errors import UserError
from seq2seq.tokenizers.base import NUM_BYTE_PIECES, SPECIAL_TOKENS, to_utf8

MAX_VOCAB_SIZE = 2**21  # more than Unicode has characters; SentencePiece's trainer allocates memory by this size
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


class TokenizerKind(str, Enum):
    """The tokenizer's model: SentencePiece's unigram, bpe or char, or torchtext words."""

    unigram = "unigram"
    bpe = "bpe"
    char = "char"
    word = "word"


class Normalization(str, Enum):
    """SentencePiece's normalization rules; only `identity` leaves text unchanged."""

    nmt_nfkc = "nmt_nfkc"
    nmt_nfkc_cf = "nmt_nfkc_cf"
    nfkc = "nfkc"
    nfkc_cf = "nfkc_cf"
    identity = "identity"


class LineBreaks(str, Enum):
    """How line breaks inside a text are encoded: as a token, or left to the normalization."""

    symbol = "symbol"
    space = "space"


class WordSplitter(str, Enum):
    """torchtext's word tokenizers that need no additional package."""

    basic_english = "basic_english"
    whitespace = "whitespace"


_IF_SUBWORDS = {"used_if": ("tokenizer.kind", ("unigram", "bpe", "char"))}
_IF_WORDS = {"used_if": ("tokenizer.kind", ("word",))}


@dataclass
class TokenizerConfig:
    """Settings of the section `tokenizer`.

    Attributes:
        kind: The tokenizer's model.
        vocab_size: Number of tokens, including the four special tokens and (with `byte_fallback`) the 256 bytes.
            Exact for unigram and bpe; an upper limit for char and word.
        joint: Whether source and target share one vocabulary.
        byte_fallback: Encode characters outside the vocabulary as their UTF-8 bytes instead of `<unk>`.
        normalization: Applied before encoding. `identity` also keeps leading, trailing and double spaces.
        line_breaks: `symbol` encodes line breaks as a token if a training text contains one inside, which only
            JSONL texts can; otherwise the tokenizer is the same as with `space`. Consecutive blank lines are
            reduced to one (all are kept with normalization=identity). `space` leaves line breaks to the
            normalization, which turns them into spaces (except identity).
        user_symbols: Strings that are always one token.
        character_coverage: Share of the corpus' characters that get their own piece. A large corpus has
            thousands of stray characters, which would fill the vocabulary; `byte_fallback` still encodes them.
            The trainer's default 0.9995 would also encode the digits of a small corpus as bytes.
        max_sentences: Size of the seeded sample of training sentences; limits memory.
        sampling_alpha: 0 is off. unigram: smoothing of the sampled segmentation (Kudo 2018, section 3.2,
            arXiv:1804.10959); bpe: probability of skipping a merge (Provilkov et al. 2020, arXiv:1910.13267).
        sampling_nbest: unigram only: number of best segmentations to sample from; -1 samples from all.
        word_tokenizer: kind=word only: how text is split.
        lowercase: kind=word only (`basic_english` always lowercases).
        min_frequency: kind=word only: rarer words become `<unk>`.
        source_vectors: kind=word only: text file of pretrained word vectors for the source side.
        target_vectors: The same for the target side.
    """

    kind: TokenizerKind = TokenizerKind.unigram
    vocab_size: int = 8000
    joint: bool = True
    byte_fallback: bool = field(default=True, metadata=_IF_SUBWORDS)
    normalization: Normalization = field(default=Normalization.nmt_nfkc, metadata=_IF_SUBWORDS)
    line_breaks: LineBreaks = LineBreaks.symbol
    user_symbols: list[str] = field(default_factory=list)
    character_coverage: float = field(default=0.9999, metadata=_IF_SUBWORDS)
    max_sentences: int = 1_000_000
    sampling_alpha: float = 0.0
    sampling_nbest: int = field(default=-1, metadata={"used_if": ("tokenizer.kind", ("unigram",))})
    word_tokenizer: WordSplitter = field(default=WordSplitter.basic_english, metadata=_IF_WORDS)
    lowercase: bool = field(default=False, metadata=_IF_WORDS)
    min_frequency: int = field(default=1, metadata=_IF_WORDS)
    source_vectors: str | None = None
    target_vectors: str | None = None

    def __post_init__(self) -> None:
        """Checks the values against each other.

        Raises:
            UserError: Naming the key, its value and the rule.
        """
        self._check_size()
        self._check_symbols()
        self._check_sampling()
        if not 0.98 <= self.character_coverage <= 1.0:  # the range SentencePiece's trainer accepts
            raise UserError(f"tokenizer.character_coverage={self.character_coverage} is not in the range 0.98 to 1.")
        for key in ("max_sentences", "min_frequency"):
            if getattr(self, key) < 1:
                raise UserError(f"tokenizer.{key}={getattr(self, key)} must be at least 1.")
        if self.kind != TokenizerKind.word:
            for key in ("source_vectors", "target_vectors"):
                if getattr(self, key) is not None:
                    raise UserError(
                        f"tokenizer.{key}={getattr(self, key)} needs tokenizer.kind=word, not {self.kind.value}: "
                        "word vectors have no entries for subwords."
                    )

    @property
    def reserved_size(self) -> int:
        """Number of tokens that do not depend on the corpus: special tokens, bytes, user symbols."""
        subword_bytes = NUM_BYTE_PIECES if self.byte_fallback and self.kind != TokenizerKind.word else 0
        return len(SPECIAL_TOKENS) + subword_bytes + len(self.user_symbols)

    def _check_size(self) -> None:
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise UserError(f"tokenizer.vocab_size={self.vocab_size} is above {MAX_VOCAB_SIZE:,}.")
        if self.vocab_size <= self.reserved_size:
            raise UserError(
                f"tokenizer.vocab_size={self.vocab_size} is too small: {self.reserved_size} tokens are reserved "
                "for special tokens, tokenizer.byte_fallback's bytes and tokenizer.user_symbols; "
                f"set at least {self.reserved_size + 1}, preferably thousands."
            )

    def _check_symbols(self) -> None:
        if len(set(self.user_symbols)) != len(self.user_symbols):
            raise UserError(f"tokenizer.user_symbols={self.user_symbols} contains a symbol twice.")
        for symbol in self.user_symbols:
            to_utf8(symbol)
            if "\n" in symbol and self.line_breaks is LineBreaks.symbol:
                raise UserError(
                    f"tokenizer.user_symbols: {symbol!r} contains a line break, which tokenizer.line_breaks=symbol "
                    "already makes a token: remove the symbol."
                )
            # SentencePiece replaces spaces in the text by its own mark, so such a symbol would never match.
            if " " in symbol and self.kind != TokenizerKind.word:
                raise UserError(
                    f"tokenizer.user_symbols: {symbol!r} contains a space, at which every token ends; give its words "
                    "as separate symbols."
                )
            if not symbol or symbol in SPECIAL_TOKENS or _BYTE_PIECE.fullmatch(symbol):
                raise UserError(
                    f"tokenizer.user_symbols: {symbol!r} cannot be a symbol: it is empty, or one of the "
                    f"reserved {', '.join(SPECIAL_TOKENS)} and <0x00> to <0xFF>."
                )

    def _check_sampling(self) -> None:
        alpha, nbest = self.sampling_alpha, self.sampling_nbest
        if not math.isfinite(alpha) or alpha < 0 or (self.kind == TokenizerKind.bpe and alpha > 1):
            rule = "from 0 to 1 (a probability)" if self.kind == TokenizerKind.bpe else "finite and at least 0"
            raise UserError(f"tokenizer.sampling_alpha={alpha} must be {rule}.")
        if alpha > 0 and self.kind not in (TokenizerKind.unigram, TokenizerKind.bpe):
            raise UserError(
                f"tokenizer.sampling_alpha={alpha} needs tokenizer.kind=unigram or bpe: "
                f"with {self.kind.value} there is only one way to split a text."
            )
        if nbest != -1 and nbest < 2:
            raise UserError(f"tokenizer.sampling_nbest={nbest} must be -1 (all segmentations) or at least 2.")
