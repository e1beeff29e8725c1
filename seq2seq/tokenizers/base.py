"""What every tokenizer is: its reserved ids, and the interface that the rest of the package uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from seq2seq.errors import UserError

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3
SPECIAL_TOKENS = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
)  # at the ids above; as user text they are ordinary characters
LINE_BREAK_ID = 4  # of the symbol between two lines, where the training texts hold line breaks
LINE_BREAK_LABEL = "↵"
UNK_SURFACE = "⁇"  # what an unknown token decodes to: U+2047, one character that real text hardly contains
BYTE_PIECES = 256


class Tokenizer(ABC):
    """Text to ids and back. Encoding adds no BOS or EOS: batching and search do."""

    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Ids of one text; `""` gives `[]`."""
        return self.encode_batch([text])[0]

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, the same as one by one.

        Raises:
            UserError: A text holds a lone surrogate, which UTF-8 cannot express.
        """

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """Ids of one sampled segmentation of each text: a pure function of texts and seed.

        Without a choice of segmentations (`sampling_alpha=0`, chars, words) it is `encode_batch`.
        """
        del seed
        return self.encode_batch(texts)

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; PAD, BOS and EOS vanish, UNK becomes `UNK_SURFACE`."""

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A readable label of each id, the special ones included."""

    @abstractmethod
    def is_byte(self, token_id: int) -> bool:
        """Whether the id is a byte piece: a part of a character the vocabulary lacks."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex sha256 of all that decides how it encodes and decodes: the same on any machine."""

    @abstractmethod
    def settings(self) -> dict[str, str | bool | int | float]:
        """What loading needs beside the file that `save` writes; `kind` is always there."""

    @abstractmethod
    def save(self, folder: Path, name: str) -> Path:
        """Writes one file `<name>.model` or `<name>.vocab.txt` into the folder and returns its path."""


def to_utf8(text: str) -> bytes:
    """UTF-8 bytes of a text.

    Raises:
        UserError: The text holds a lone surrogate.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}), "
            "which is no character and has no UTF-8 form; read the text with errors='replace', or remove it."
        ) from None
