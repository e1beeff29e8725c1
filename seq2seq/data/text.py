r"""Reads text files and byte streams as lines, by one rule for training data, test sets and standard input.

A line ends at ``b"\n"`` and nowhere else; one ``b"\r"`` before it, or at the end of the file, is dropped.
Characters that other programs may treat as a line end (a lone carriage return, VT, FF, U+0085, U+2028, U+2029)
are part of the line, so that two files aligned by newline bytes stay aligned. A byte order mark at the start is
stripped.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import TypeVar

from seq2seq.errors import UserError

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"
_UTF16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_COMPRESSED = {
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"PK\x03\x04": "a zip archive",
}
_PROBE_BYTES = 1024  # of the first line, to count zero bytes in
_BLOCK_BYTES = 1 << 16  # maximum number of bytes per read

ENCODING_ERRORS = ("strict", "replace")  # for invalid UTF-8: raise an error, or read U+FFFD


def check_readable(path: Path, label: str | None = None) -> None:
    """Raises a UserError if ``path`` does not exist or is a folder.

    Args:
        path: the file.
        label: how the user named it, for messages, such as ``data.train.source=train.de``; defaults to the path.
    """
    name = f"{label} ({path})" if label is not None else str(path)
    try:
        is_folder = path.is_dir()
        exists = path.exists()
    except OSError as error:  # the name is too long, or a parent folder is not searchable
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error
    if is_folder:
        raise UserError(f"{name}: is a folder, not a file. Give the path of a text file.")
    if not exists and path.is_symlink():
        raise UserError(f"{name}: a link to {path.readlink()}, where there is no file.")
    if not exists:
        raise UserError(f"{name}: no such file.{_missing_file_hint(path)}")


def _missing_file_hint(path: Path) -> str:
    """Returns a hint if a compressed or uncompressed version exists, or if the folder does not."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    if other.is_file():
        return f" Did you mean {other.name}, in the same folder?"
    if not path.parent.is_dir():
        return f" Its folder {path.parent} does not exist."
    return ""


def read_lines(path: Path, *, errors: str = "strict") -> Iterator[str]:
    """Yields the lines of a text file without their line ends; a file named ``.gz`` is decompressed.

    Memory is bounded by the longest line. A last line without a newline is a line; an empty file has none.

    Args:
        path: a file or a named pipe.
        errors: ``strict`` or ``replace``, see `ENCODING_ERRORS`.

    Raises:
        UserError: the file is missing, a folder, not UTF-8 (names the line), UTF-16, compressed but not named
            ``.gz``, or named ``.gz`` but not gzip or truncated.
    """
    check_readable(path)
    try:
        with open(path, "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            yield from decode_lines(stream, str(path), errors=errors)
    except gzip.BadGzipFile as error:
        raise UserError(
            f"{path}: its name ends in .gz, but it is not a gzip file or is damaged ({error}). "
            "Rename it if it is plain text; otherwise get it again."
        ) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is truncated or damaged ({error}). Get it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_lines(stream: BufferedIOBase, name: str, *, errors: str = "strict") -> Iterator[str]:
    """Yields the decoded lines of a byte stream as they arrive. Memory is bounded by the longest line.

    Args:
        stream: binary stream, such as ``sys.stdin.buffer``.
        name: name of the stream in messages.
        errors: ``strict`` or ``replace``, see `ENCODING_ERRORS`.

    Raises:
        UserError: a line is not UTF-8, or the stream looks like UTF-16 or a compressed file.
    """
    count = 0
    for block in _blocks(stream):
        if count == 0:  # the first block
            block = block.removeprefix(_BOM)
            _check_start(block, name)
        try:
            lines = _lines(block.decode("utf-8", errors))
        except UnicodeDecodeError as error:
            start = block.rfind(b"\n", 0, error.start) + 1  # of the line
            lines = _lines(block[:start].decode("utf-8"))
            yield from lines
            raise UserError(
                f"{name}:{count + len(lines) + 1}: not UTF-8: byte 0x{block[error.start]:02x} in column "
                f"{error.start - start + 1}. "
                "Convert the file to UTF-8 (iconv does), or, for a corpus, set data.encoding_errors=replace."
            ) from error
        yield from lines
        count += len(lines)


def _blocks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yields blocks of whole lines; the last line may lack its line end, and the last block may be empty."""
    parts: list[bytes] = []  # of an incomplete line
    while data := stream.read1(_BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join([*parts, data[:end]])
            parts = []
        parts.append(data[end:])
    yield b"".join(parts)


def _lines(block: str) -> list[str]:
    """Splits a block into lines, without their line ends."""
    lines = block.split("\n")
    if not lines[-1]:  # after the last line end
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if "\r" in block else lines


def _check_start(block: bytes, name: str) -> None:
    """Raises a UserError if the first line shows that the stream is compressed, UTF-16 or UTF-32."""
    line = block.split(b"\n", 1)[0].removesuffix(b"\r")
    for magic, kind in _COMPRESSED.items():
        if line.startswith(magic):
            fix = "Give it a name ending in .gz" if magic == b"\x1f\x8b" else "Decompress it first"
            raise UserError(f"{name}: is {kind}, not plain text. {fix}.")
    probe = line[:_PROBE_BYTES]
    # Every second byte of ASCII text in UTF-16 is zero; UTF-8 text has hardly any.
    if probe.startswith(_UTF16_OR_32) or (len(probe) >= 4 and probe.count(0) * 3 >= len(probe)):
        raise UserError(f"{name}: looks like UTF-16 or UTF-32, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")


def chunks(items: Iterable[T], max_items: int, max_characters: int, *, length: Callable[[T], int]) -> Iterator[list[T]]:
    """Yields the items in lists, each as soon as it has `max_items` items or at least `max_characters` characters.

    Args:
        items: consumed lazily.
        max_items: maximum number of items in a list.
        max_characters: number of characters at which a list ends early.
        length: returns the number of characters of an item.
    """
    chunk: list[T] = []
    characters = 0
    for item in items:
        chunk.append(item)
        characters += length(item)
        if len(chunk) == max_items or characters >= max_characters:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
