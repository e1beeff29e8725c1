"""Word tokenizer: torchtext's splitters and vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID, UNK_SURFACE, Tokenizer, to_utf8
from seq2seq.tokenizers.config import TokenizerConfig, WordSplitter

WORD_KIND = "word"
_LINE_BREAK = "<line break>"  # its entry in the vocabulary file; not a word, because it contains a space


class WordTokenizer(Tokenizer):
    """Splits text into words with a torchtext tokenizer, and maps them to ids.

    Lossy: unknown words, spacing and (with `lowercase`) case are lost; decoding joins the words with spaces. The
    names of the special tokens are unknown words in user text.
    """

    def __init__(self, words: Sequence[str], *, splitter: WordSplitter, lowercase: bool) -> None:
        """Builds the tokenizer of a vocabulary: the words after the special tokens, in the order of their ids."""
        self._words = [*SPECIAL_TOKENS, *words]
        self._ids = {word: token for token, word in enumerate(words, start=len(SPECIAL_TOKENS))}
        self._splitter = splitter
        self._lowercase = lowercase
        self._split = build_splitter(splitter, lowercase=lowercase)
        self.vocab_size = len(self._words)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        for text in texts:
            to_utf8(text)  # raises the same errors as the other tokenizers
        return [[self._ids.get(word, UNK_ID) for word in self._split(text)] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`; joins words with spaces."""
        kept = [token for token in map(int, ids) if token not in (PAD_ID, BOS_ID, EOS_ID)]
        return " ".join(UNK_SURFACE if token == UNK_ID else self._words[token] for token in kept)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """See `Tokenizer.pieces`."""
        return [self._words[int(token)] for token in ids]

    def is_byte(self, token_id: int) -> bool:
        """See `Tokenizer.is_byte`; always False."""
        return False

    def fingerprint(self) -> str:
        """See `Tokenizer.fingerprint`; covers settings and vocabulary."""
        settings = json.dumps(self.settings(), sort_keys=True).encode()
        return hashlib.sha256(settings + b"\n" + self._content()).hexdigest()

    def settings(self) -> dict[str, str | bool | int | float]:
        """See `Tokenizer.settings`."""
        return {"kind": WORD_KIND, "word_tokenizer": self._splitter.value, "lowercase": self._lowercase}

    def save(self, folder: Path, name: str) -> Path:
        """See `Tokenizer.save`."""
        path = folder / f"{name}.vocab.txt"
        write_bytes(path, self._content())
        return path

    def _content(self) -> bytes:
        return "".join(f"{token}\n" for token in self._words).encode("utf-8")


def build_splitter(splitter: WordSplitter, *, lowercase: bool) -> Callable[[str], list[str]]:
    """Returns the torchtext function that splits a text into words."""
    from torchtext.data import get_tokenizer

    split: Callable[[str], list[str]] = get_tokenizer(None if splitter == WordSplitter.whitespace else splitter.value)
    return (lambda text: split(text.lower())) if lowercase else split


def train_words(sentences: Iterable[bytes], config: TokenizerConfig, *, line_breaks: bool) -> WordTokenizer:
    """Builds a vocabulary of the most frequent words of UTF-8 sentences, at most `tokenizer.vocab_size` tokens.

    Args:
        sentences: the training text.
        config: the tokenizer's settings.
        line_breaks: whether to reserve `LINE_BREAK_ID` for the line break.

    Raises:
        UserError: A user symbol would be split, there are no words, or all words are too rare.
    """
    from torchtext.vocab import Vocab

    split = build_splitter(config.word_tokenizer, lowercase=config.lowercase)
    for symbol in config.user_symbols:
        if split(symbol) != [symbol]:
            raise UserError(
                f"tokenizer.user_symbols: tokenizer.word_tokenizer={config.word_tokenizer.value} splits "
                f"{symbol!r} into {split(symbol)}; choose a symbol that it keeps whole."
            )
    counts = Counter(word for sentence in sentences for word in split(sentence.decode("utf-8")))
    if not counts:
        raise UserError("data.train has no words to train the tokenizer on: all of its texts are blank.")
    specials = [*SPECIAL_TOKENS, *([_LINE_BREAK] if line_breaks else []), *config.user_symbols]
    vocab = Vocab(
        counts,
        max_size=config.vocab_size - len(specials),
        min_freq=config.min_frequency,
        specials=specials,
    )
    if len(vocab) == len(specials):
        raise UserError(
            f"tokenizer.min_frequency={config.min_frequency} and tokenizer.vocab_size={config.vocab_size} leave "
            "no word of the training corpus; lower the first or raise the second."
        )
    words = vocab.itos[len(SPECIAL_TOKENS) :]
    return WordTokenizer(words, splitter=config.word_tokenizer, lowercase=config.lowercase)


def parse_vocabulary(content: bytes, path: Path) -> list[str]:
    """Returns the words of a saved vocabulary file, without the special tokens.

    Raises:
        UserError: The file is not a vocabulary written by `WordTokenizer.save`.
    """
    try:
        tokens = content.decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is not UTF-8 text at byte {error.start}.") from None
    num_special = len(SPECIAL_TOKENS)
    if tuple(tokens[:num_special]) != SPECIAL_TOKENS or len(set(tokens)) != len(tokens):
        raise UserError(
            f"{path} is not a vocabulary: it must begin with the lines {', '.join(SPECIAL_TOKENS)} and must "
            "not repeat a token."
        )
    return tokens[num_special:]
