"""Training, saving and loading of the source and the target tokenizer."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes
from seq2seq.tokenizers.base import SPECIAL_TOKENS, Tokenizer
from seq2seq.tokenizers.config import LineBreaks, Normalization, TokenizerConfig, TokenizerKind, WordSplitter
from seq2seq.tokenizers.multiline import LineRule, MultilineTokenizer, split_lines
from seq2seq.tokenizers.subword import SENTENCEPIECE_KIND, SubwordTokenizer, train_subwords
from seq2seq.tokenizers.training_sample import reservoir_sample, training_sentences
from seq2seq.tokenizers.word import WORD_KIND, WordTokenizer, parse_vocabulary, train_words

_FORMAT_VERSION = 1
_DESCRIPTION = "tokenizer.json"

OpenTexts = Callable[[], Iterator[str]]  # starts an iteration over the texts of one side


@dataclass(frozen=True)
class Tokenizers:
    """The source and the target tokenizer; with `joint` they are the same object, with one vocabulary."""

    source: Tokenizer
    target: Tokenizer
    joint: bool

    def fingerprint(self) -> str:
        """Returns the hex sha256 of all that affects encoding (sampling aside) and decoding; equal on all machines."""
        fingerprints = [tokenizer.fingerprint() for _, tokenizer in self._named_tokenizers()]
        return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes the model files, then `tokenizer.json`, to the folder."""
        description = {
            "format_version": _FORMAT_VERSION,
            "joint": self.joint,
            "fingerprint": self.fingerprint(),
            "tokenizers": {
                name: {"file": tokenizer.save(folder, name).name, **tokenizer.settings()}
                for name, tokenizer in self._named_tokenizers()
            },
        }
        text = json.dumps(description, indent=2) + "\n"
        write_bytes(folder / _DESCRIPTION, text.encode())

    def _named_tokenizers(self) -> list[tuple[str, Tokenizer]]:
        return [("joint", self.source)] if self.joint else [("source", self.source), ("target", self.target)]


def train_tokenizers(source: OpenTexts, target: OpenTexts, config: TokenizerConfig, *, seed: int) -> Tokenizers:
    """Trains the tokenizers on a seeded sample of the texts.

    Keeps at most `config.max_sentences` sentences in memory, of limited length: a long text is split into several,
    because the trainer would skip it.

    Args:
        source: Returns an iterator over the source texts.
        target: Returns an iterator over the target texts.
        config: The tokenizer's settings.
        seed: Seed of the sample, if there are more than `config.max_sentences` sentences.

    Returns:
        The tokenizers; the same texts, settings and seed give the same bytes on any machine.

    Raises:
        UserError: There is no text, it contains a lone surrogate, or it cannot yield `tokenizer.vocab_size` tokens.
    """
    if config.joint:
        shared = _train(itertools.chain(source(), target()), "source or target", config, seed=seed)
        return Tokenizers(shared, shared, joint=True)
    source_tokenizer = _train(source(), "source", config, seed=seed)
    return Tokenizers(source_tokenizer, _train(target(), "target", config, seed=seed), joint=False)


def _train(texts: Iterable[str], side: str, config: TokenizerConfig, *, seed: int) -> Tokenizer:
    exact = config.normalization == Normalization.identity and config.kind != TokenizerKind.word  # words lose spacing
    rule = LineRule.exact if exact else LineRule.tidy
    found_breaks = False  # whether a text has a line break inside, not only at its ends, that becomes a token

    def lines() -> Iterator[str]:
        nonlocal found_breaks
        for text in texts:
            if config.line_breaks == LineBreaks.symbol and "\n" in text.strip():
                found_breaks = True
                yield from split_lines(text, rule)
            else:
                yield text

    sentences = reservoir_sample(training_sentences(lines()), size=config.max_sentences, seed=seed)
    if not sentences:
        raise UserError(
            f"data.train has no {side} text to train the tokenizer on: all of its texts are empty or blank."
        )
    train_single_line = train_words if config.kind == TokenizerKind.word else train_subwords
    # `found_breaks` is known only now: the sample has read all texts.
    tokenizer = train_single_line(sentences, config, line_breaks=found_breaks)
    return MultilineTokenizer(tokenizer, rule) if found_breaks else tokenizer


def load_tokenizers(folder: Path) -> Tokenizers:
    """Loads tokenizers written by `Tokenizers.save`.

    Raises:
        UserError: A file is missing, damaged or of a newer version; the message names it.
    """
    path = folder / _DESCRIPTION
    description = _read_description(path)
    try:
        joint = bool(description["joint"])
        entries = [description["tokenizers"][name] for name in (("joint",) if joint else ("source", "target"))]
        loaded = [_load_tokenizer(folder, entry) for entry in entries]
        expected = description["fingerprint"]
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {error!r}; restore it or train the tokenizer again.") from None
    tokenizers = Tokenizers(loaded[0], loaded[-1], joint=joint)
    if tokenizers.fingerprint() != expected:
        raise UserError(
            f"{folder}: a tokenizer file is damaged, or does not belong to {_DESCRIPTION} (different "
            "fingerprint); restore the folder or train the tokenizer again."
        )
    return tokenizers


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: the tokenizer cannot be read ({error.strerror}).") from None
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


def _load_tokenizer(folder: Path, entry: dict[str, Any]) -> Tokenizer:
    tokenizer = _load_single_line(folder, entry)
    return MultilineTokenizer(tokenizer, LineRule(entry["line_breaks"])) if "line_breaks" in entry else tokenizer


def _load_single_line(folder: Path, entry: dict[str, Any]) -> Tokenizer:
    path = folder / Path(entry["file"]).name  # only the name, so that no path leads out of the folder
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if entry["kind"] == WORD_KIND:
        words = parse_vocabulary(content, path)
        splitter = WordSplitter(entry["word_tokenizer"])
        return WordTokenizer(words, splitter=splitter, lowercase=entry["lowercase"])
    if entry["kind"] != SENTENCEPIECE_KIND:
        raise UserError(
            f"{folder / _DESCRIPTION}: this version has no tokenizer of the kind {entry['kind']!r}; update seq2seq."
        )
    try:  # the settings' own rules apply to the file too
        sampling = TokenizerConfig(sampling_alpha=entry["sampling_alpha"], sampling_nbest=entry["sampling_nbest"])
    except UserError as error:
        raise UserError(f"{folder / _DESCRIPTION} is damaged: {error}") from None
    try:
        tokenizer = SubwordTokenizer(
            content, sampling_alpha=sampling.sampling_alpha, sampling_nbest=sampling.sampling_nbest
        )
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    except (RuntimeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: it is not a SentencePiece model.") from None
    if tuple(pieces[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        raise UserError(f"{path} was not trained by seq2seq: its pieces must begin with {', '.join(SPECIAL_TOKENS)}.")
    return tokenizer
