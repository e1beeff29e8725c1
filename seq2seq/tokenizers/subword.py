"""SentencePiece tokenizers (unigram, BPE, characters) and their training."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import sentencepiece

from seq2seq.errors import UserError
from seq2seq.system.files import write_bytes
from seq2seq.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID, UNK_SURFACE, Tokenizer, to_utf8
from seq2seq.tokenizers.config import MAX_VOCAB_SIZE, Normalization, TokenizerConfig, TokenizerKind
from seq2seq.tokenizers.subword_sampling import Sampler, build_sampler

SENTENCEPIECE_KIND = "sentencepiece"
MAX_SENTENCE_BYTES = 4192  # the trainer's default limit: it silently skips longer sentences
_TRAINING_THREADS = 4  # fixed: the number is stored in the model, whose bytes must not depend on the machine
_ERRORS_ONLY = 2  # minloglevel


class SubwordTokenizer(Tokenizer):
    """A trained SentencePiece model.

    With `normalization=identity` and `byte_fallback`, decode(encode(text)) == text, except for U+2581,
    SentencePiece's own mark for a space, which is decoded as a space.
    """

    def __init__(self, model: bytes, *, sampling_alpha: float = 0.0, sampling_nbest: int = -1) -> None:
        """Parses a serialized model; raises RuntimeError if it is invalid."""
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._alpha = sampling_alpha
        self._nbest = sampling_nbest
        self.vocab_size = int(self._processor.vocab_size())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`; other Python threads can run at the same time."""
        data = [to_utf8(text) for text in texts]
        ids: list[list[int]] = self._processor.encode(data, num_threads=1)
        return ids

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """See `Tokenizer.sample_batch`; `seq2seq.tokenizers.subword_sampling` describes the distributions."""
        if self._alpha == 0:
            return self.encode_batch(texts)
        for text in texts:
            to_utf8(text)  # raises the same errors as encode_batch
        return self._sampler.sample_batch(texts, seed=seed)

    @functools.cached_property
    def _sampler(self) -> Sampler:
        return build_sampler(self._processor, alpha=self._alpha, nbest=self._nbest)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`; bytes that are not UTF-8 become U+FFFD."""
        kept = [token for token in map(int, ids) if token not in (PAD_ID, BOS_ID, EOS_ID)]
        return str(self._processor.decode(kept))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """See `Tokenizer.pieces`; a leading `▁` marks the start of a word, `<0xE2>` a byte."""
        return [str(self._processor.id_to_piece(int(token))) for token in ids]

    def is_byte(self, token_id: int) -> bool:
        """See `Tokenizer.is_byte`."""
        return bool(self._processor.is_byte(int(token_id)))

    def fingerprint(self) -> str:
        """See `Tokenizer.fingerprint`; the sha256 of the model."""
        return hashlib.sha256(self._model).hexdigest()

    def settings(self) -> dict[str, str | bool | int | float]:
        """See `Tokenizer.settings`."""
        return {
            "kind": SENTENCEPIECE_KIND,
            "sampling_alpha": self._alpha,
            "sampling_nbest": self._nbest,
        }

    def save(self, folder: Path, name: str) -> Path:
        """See `Tokenizer.save`."""
        path = folder / f"{name}.model"
        write_bytes(path, self._model)
        return path


def train_subwords(sentences: Sequence[bytes], config: TokenizerConfig, *, line_breaks: bool) -> SubwordTokenizer:
    """Trains a SentencePiece model on UTF-8 sentences of at most `MAX_SENTENCE_BYTES`.

    Args:
        sentences: the training text.
        config: the tokenizer's settings.
        line_breaks: whether to reserve `LINE_BREAK_ID` for the line break.

    Raises:
        UserError: `tokenizer.vocab_size` is too large or too small for these sentences, or they are blank.
    """
    symbols = ["\n", *config.user_symbols] if line_breaks else list(config.user_symbols)
    try:
        model = _train(sentences, config, kind=config.kind, vocab_size=config.vocab_size, symbols=symbols)
    except RuntimeError:
        _check_minimum(sentences, config, symbols)
        raise
    tokenizer = SubwordTokenizer(model, sampling_alpha=config.sampling_alpha, sampling_nbest=config.sampling_nbest)
    if config.kind != TokenizerKind.char and tokenizer.vocab_size < config.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} is too large for the training corpus, which yields "
            f"at most {tokenizer.vocab_size} {config.kind.value} tokens; "
            f"set tokenizer.vocab_size={tokenizer.vocab_size} or less, or add text."
        )
    return tokenizer


def _check_minimum(sentences: Sequence[bytes], config: TokenizerConfig, symbols: list[str]) -> None:
    # A character model of unlimited size has what every model needs: the reserved tokens and the alphabet.
    try:
        alphabet = _train(sentences, config, kind=TokenizerKind.char, vocab_size=MAX_VOCAB_SIZE, symbols=symbols)
    except RuntimeError:  # an empty alphabet is the only possible reason
        raise UserError(
            f"data.train has no text to train the tokenizer on: tokenizer.normalization="
            f"{config.normalization.value} removes all of it."
        ) from None
    minimum = SubwordTokenizer(alphabet).vocab_size
    if config.vocab_size < minimum:
        reserved = config.reserved_size + len(symbols) - len(config.user_symbols)
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} is too small: the training corpus needs at least "
            f"{minimum}: {reserved} reserved tokens and {minimum - reserved} characters; "
            f"set tokenizer.vocab_size={minimum} or more, or lower tokenizer.character_coverage."
        )


def _train(
    sentences: Sequence[bytes], config: TokenizerConfig, *, kind: TokenizerKind, vocab_size: int, symbols: list[str]
) -> bytes:
    writer = io.BytesIO()
    lossless = config.normalization == Normalization.identity
    train = functools.partial(
        sentencepiece.SentencePieceTrainer.train,
        sentence_iterator=iter(sentences),
        model_writer=writer,
        model_type=kind.value,
        vocab_size=vocab_size,
        hard_vocab_limit=False,  # if the corpus yields fewer tokens, train a smaller model, which tells the maximum
        character_coverage=config.character_coverage,
        byte_fallback=config.byte_fallback,
        normalization_rule_name=config.normalization.value,
        remove_extra_whitespaces=not lossless,
        user_defined_symbols=symbols,  # their ids follow the special tokens, in this order
        max_sentence_length=MAX_SENTENCE_BYTES,
        pad_id=PAD_ID,
        unk_id=UNK_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_piece=SPECIAL_TOKENS[PAD_ID],
        unk_piece=SPECIAL_TOKENS[UNK_ID],
        bos_piece=SPECIAL_TOKENS[BOS_ID],
        eos_piece=SPECIAL_TOKENS[EOS_ID],
        unk_surface=UNK_SURFACE,
        num_threads=_TRAINING_THREADS,
        minloglevel=_ERRORS_ONLY,
    )
    _run_in_thread(train)
    return writer.getvalue()


def _run_in_thread(task: Callable[[], object]) -> None:
    """Runs a long C++ call in a thread and waits, so that the main thread handles signals without delay.

    If a signal raises an exception, the call continues in the background until it returns or the process exits.
    """
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(task())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="tokenizer training", daemon=True).start()
    done.result()
