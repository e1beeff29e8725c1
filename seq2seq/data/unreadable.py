"""Records of a corpus that cannot be read, and what becomes of them (``data.on_error``)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from seq2seq.errors import UserError

T = TypeVar("T")

# How lines are decoded so that each can be examined by itself: bytes that are not UTF-8 become lone surrogates.
KEEP_BYTES = "surrogateescape"
_MAX_SHARE = 0.01
_MAX_NAMED = 10


class OnError(str, Enum):
    """What to do with a record that cannot be read: refuse the corpus, or leave the record out."""

    stop = "stop"
    skip = "skip"


@dataclass
class UnreadableRecords:
    """The records that were left out of a corpus.

    Attributes:
        count: how many.
        named: the messages of the first ten: file, line, and what is wrong.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def leave_out(self, records: Iterable[T | UserError], key: str) -> Iterator[T]:
        """Yields the records that could be read, and counts the others.

        Args:
            records: each a record, or the error of one that cannot be read.
            key: config key of the corpus, for messages.

        Raises:
            UserError: at the end, if more than 1 % cannot be read.
        """
        total = 0
        for total, record in enumerate(records, start=1):  # noqa: B007 - used after the loop
            if not isinstance(record, UserError):
                yield record
                continue
            self.count += 1
            if len(self.named) < _MAX_NAMED:
                self.named.append(str(record))
        if self.count > _MAX_SHARE * total:
            shown = "".join(f"\n  {message}" for message in self.named)
            raise UserError(
                f"{key}: {self.count:,} of {total:,} records cannot be read, more than the {_MAX_SHARE:.0%} that "
                f"data.on_error=skip leaves out:{shown}"
            )


def collector(on_error: OnError, split: str) -> UnreadableRecords | None:
    """Returns what receives the unreadable records of a split; None for one that is refused with such a record.

    A test set is never shortened: its outputs stay aligned with its files.

    Args:
        on_error: ``data.on_error``.
        split: ``train``, ``valid`` or ``test.NAME``.
    """
    return UnreadableRecords() if on_error is OnError.skip and split in ("train", "valid") else None


def attempt(read: Callable[[], T]) -> T | UserError:
    """Returns what a function returns, or the UserError that it raises."""
    try:
        return read()
    except UserError as error:
        return error


def require_utf8(text: str, location: str) -> None:
    """Raises the error that `utf8_error` returns, if it does."""
    error = utf8_error(text, location)
    if error is not None:
        raise error


def utf8_error(text: str, location: str) -> UserError | None:
    """Returns the error of a line, decoded with `KEEP_BYTES`, that has a byte that is not UTF-8; None if all are.

    It names the byte and its column in characters.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        return UserError(f"{location}: not UTF-8: byte 0x{byte:02x} in column {error.start + 1}.")
    return None
