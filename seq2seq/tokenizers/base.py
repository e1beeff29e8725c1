"""The tokenizer interface, and the reserved ids that all tokenizers share."""

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
)  # at the ids above; in user text they are ordinary characters
LINE_BREAK_ID = 4  # id of the line break, if the training texts contain line breaks
LINE_BREAK_LABEL = "↵"
UNK_SURFACE = "⁇"  # what an unknown token decodes to: U+2047, a character that real text hardly contains
NUM_BYTE_PIECES = 256


class Tokenizer(ABC):
    """Converts text to ids and back. Encoding does not add BOS or EOS; batching and search do."""

    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Encodes one text; `""` gives `[]`."""
        return self.encode_batch([text])[0]

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes each text, with the same result as one by one.

        Raises:
            UserError: A text contains a lone surrogate, which UTF-8 cannot encode.
        """

    def sample_batch(self, texts: Sequence[str], *, seed: int) -> list[list[int]]:
        """Encodes one sampled segmentation of each text, as a pure function of texts and seed.

        Where sampling is off or impossible (`sampling_alpha=0`, chars, words), same as `encode_batch`.
        """
        return self.encode_batch(texts)

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Decodes ids to text; drops PAD, BOS and EOS, and turns UNK into `UNK_SURFACE`."""

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns a readable label of each id, including special ids."""

    @abstractmethod
    def is_byte(self, token_id: int) -> bool:
        """Whether the id is a byte piece, part of a character that is not in the vocabulary."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns the hex sha256 of everything that affects encoding and decoding; equal on all machines."""

    @abstractmethod
    def settings(self) -> dict[str, str | bool | int | float]:
        """Returns what loading needs in addition to the file that `save` writes; always has the key `kind`."""

    @abstractmethod
    def save(self, folder: Path, name: str) -> Path:
        """Writes a file `<name>.model` or `<name>.vocab.txt` to the folder and returns its path."""


def to_utf8(text: str) -> bytes:
    """Encodes a text as UTF-8.

    Raises:
        UserError: The text contains a lone surrogate.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text contains a lone surrogate (U+{ord(text[error.start]):04X} at character {error.start}), "
            "which is not a character and cannot be encoded as UTF-8; read the text with errors='replace', or "
            "remove it."
        ) from None
