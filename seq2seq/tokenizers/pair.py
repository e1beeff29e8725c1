"""Trains, saves and loads the tokenizers of the source and the target side."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes
from seq2seq.tokenizers.base import SPECIAL_TOKENS, Tokenizer, to_utf8
from seq2seq.tokenizers.config import LineBreaks, Normalization, TokenizerConfig, TokenizerKind, WordSplitter
from seq2seq.tokenizers.multiline import LineRule, MultilineTokenizer, split_lines
from seq2seq.tokenizers.subword import MAX_SENTENCE_BYTES, SubwordTokenizer, train_subwords
from seq2seq.tokenizers.word import WORDS, WordTokenizer, parse_vocabulary, train_words

_FORMAT_VERSION = 1
_DESCRIPTION = "tokenizer.json"
_LOWER_BLOCK = "▅".encode()  # U+2585: the trainer leaves out every sentence that holds it

TextStream = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of both sides; with `joint` they are one object, and an id means the same on both."""

    source: Tokenizer
    target: Tokenizer
    joint: bool

    def fingerprint(self) -> str:
        """Hex sha256 of all that decides how text is encoded and decoded; nothing of the machine is in it."""
        parts = [tokenizer.fingerprint() for _, tokenizer in self._members()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes the model files, then `tokenizer.json`, into the folder."""
        description = {
            "format_version": _FORMAT_VERSION,
            "joint": self.joint,
            "fingerprint": self.fingerprint(),
            "tokenizers": {
                name: {"file": tokenizer.save(folder, name).name, **tokenizer.settings()}
                for name, tokenizer in self._members()
            },
        }
        text = json.dumps(description, indent=2) + "\n"
        write_bytes(folder / _DESCRIPTION, text.encode())

    def _members(self) -> list[tuple[str, Tokenizer]]:
        return [("joint", self.source)] if self.joint else [("source", self.source), ("target", self.target)]


def train_tokenizers(source: TextStream, target: TextStream, config: TokenizerConfig, *, seed: int) -> Tokenizers:
    """Trains the tokenizers on a seeded sample of the texts.

    Memory holds at most `config.max_sentences` sentences of at most `MAX_SENTENCE_BYTES` bytes; a longer text
    is several sentences, so none of it is lost on the trainer, which leaves long sentences out.

    Args:
        source: Opens the stream of source texts.
        target: Opens the stream of target texts.
        config: The settings.
        seed: Decides which sentences are sampled where there are too many.

    Returns:
        The tokenizers; the same texts, settings and seed give the same bytes on any machine.

    Raises:
        UserError: No text, a lone surrogate in it, or a `tokenizer.vocab_size` that the texts cannot give.
    """

    def train(texts: Iterable[str], side: str) -> Tokenizer:
        lines = _Lines(texts, config)
        sentences = sample_sentences(lines, size=config.max_sentences, seed=seed)
        if not sentences:
            raise UserError(
                f"data.train holds no {side} text to train the tokenizer on: it is empty or blank throughout."
            )
        train_lines = train_words if config.kind == TokenizerKind.word else train_subwords
        tokenizer = train_lines(sentences, config, line_breaks=lines.found_breaks)
        return MultilineTokenizer(tokenizer, lines.rule) if lines.found_breaks else tokenizer

    if config.joint:
        both = train(itertools.chain(source(), target()), "source or target")
        return Tokenizers(both, both, joint=True)
    return Tokenizers(train(source(), "source"), train(target(), "target"), joint=False)


class _Lines:
    """Training texts cut into their lines, if line breaks are to be symbols.

    Attributes:
        rule: which line breaks are kept; words have no spacing to keep exactly.
        found_breaks: whether a text so far held a line break inside, and not only at its ends.
    """

    def __init__(self, texts: Iterable[str], config: TokenizerConfig):
        exact = config.normalization == Normalization.identity and config.kind != TokenizerKind.word
        self.rule = LineRule.exact if exact else LineRule.tidy
        self.found_breaks = False
        self._texts = texts
        self._cut = config.line_breaks == LineBreaks.symbol

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            if self._cut and "\n" in text.strip():
                self.found_breaks = True
                yield from split_lines(text, self.rule)
            else:
                yield text


def sample_sentences(texts: Iterable[str], *, size: int, seed: int) -> list[bytes]:
    """A uniform sample of the texts' sentences as UTF-8, at most `size`; blank ones are left out.

    Reservoir sampling (Vitter 1985, algorithm R, doi:10.1145/3147.3165). All of them, in order, where
    they are no more than `size`.
    """
    generator = random.Random(seed)
    kept: list[bytes] = []
    for count, sentence in enumerate(_sentences(texts)):
        if count < size:
            kept.append(sentence)
            continue
        place = generator.randrange(count + 1)
        if place < size:
            kept[place] = sentence
    return kept


def _sentences(texts: Iterable[str]) -> Iterator[bytes]:
    for text in texts:
        data = to_utf8(text).replace(_LOWER_BLOCK, b" ")
        if len(data) <= MAX_SENTENCE_BYTES:
            if data.strip():
                yield data
            continue
        yield from filter(bytes.strip, _cut(data))


def _cut(data: bytes) -> Iterator[bytes]:
    """Parts of at most `MAX_SENTENCE_BYTES`, cut at a space or else between two characters."""
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


def load_tokenizers(folder: Path) -> Tokenizers:
    """Reads what `Tokenizers.save` wrote.

    Raises:
        UserError: Naming the file that is missing, damaged or of a newer version.
    """
    path = folder / _DESCRIPTION
    description = _read_description(path)
    try:
        joint = bool(description["joint"])
        entries = [description["tokenizers"][name] for name in (("joint",) if joint else ("source", "target"))]
        members = [_load_one(folder, entry) for entry in entries]
        expected = description["fingerprint"]
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {error!r}; restore it or train the tokenizer again.") from None
    tokenizers = Tokenizers(members[0], members[-1], joint=joint)
    if tokenizers.fingerprint() != expected:
        raise UserError(
            f"{folder}: a tokenizer's file is damaged, or does not belong to {_DESCRIPTION} (another "
            "fingerprint); restore the folder or train the tokenizer again."
        )
    return tokenizers


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: no tokenizer can be read there ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}; restore it or train the tokenizer again.") from None
    version = description.get("format_version") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{path} does not describe a tokenizer: it has no format_version.")
    if version > _FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, but this program knows versions up to {_FORMAT_VERSION}; "
            "update seq2seq."
        )
    return dict(description)


def _load_one(folder: Path, entry: dict[str, Any]) -> Tokenizer:
    lines = _load_lines(folder, entry)
    return MultilineTokenizer(lines, LineRule(entry["line_breaks"])) if "line_breaks" in entry else lines


def _load_lines(folder: Path, entry: dict[str, Any]) -> Tokenizer:
    path = folder / Path(entry["file"]).name  # a name, never a way out of the folder
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if entry["kind"] == WORDS:
        words = parse_vocabulary(content, path)
        splitter = WordSplitter(entry["word_tokenizer"])
        return WordTokenizer(words, splitter=splitter, lowercase=entry["lowercase"])
    try:
        sampling = TokenizerConfig(sampling_alpha=entry["sampling_alpha"], sampling_nbest=entry["sampling_nbest"])
    except UserError as error:
        raise UserError(f"{folder / _DESCRIPTION} is damaged: {error}") from None
    try:
        made = SubwordTokenizer(content, sampling_alpha=sampling.sampling_alpha, sampling_nbest=sampling.sampling_nbest)
        pieces = made.pieces(range(made.vocab_size))
    except (RuntimeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: it is not a SentencePiece model.") from None
    if tuple(pieces[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        raise UserError(f"{path} is not a model of this program: it must begin with {', '.join(SPECIAL_TOKENS)}.")
    return made
