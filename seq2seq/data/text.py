r"""Text files and streams as lines: one rule for training data, test sets and standard input.

A line ends at ``b"\n"`` and nowhere else; one ``b"\r"`` before it, or at the end of the file, is dropped.
Everything that other programs may take for a line end (a lone carriage return, VT, FF, U+0085, U+2028, U+2029)
is a character of its line, so that two files that were aligned by counting newline bytes stay aligned. A byte
order mark is stripped once, at the start.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from seq2seq.errors import UserError

_BOM = b"\xef\xbb\xbf"
_UTF16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_COMPRESSED = {
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"PK\x03\x04": "a zip archive",
}
_PROBE = 1024  # bytes of the first line that are looked at for zero bytes
_BLOCK = 1 << 16  # bytes that are read at once, where there are as many already


ENCODING_ERRORS = ("strict", "replace")  # bytes that are not UTF-8: refuse them, or read each as U+FFFD


def check_readable(path: Path, label: str | None = None) -> None:
    """Raises a UserError unless ``path`` is something that lines can be read from.

    Args:
        path: the file.
        label: how the user named it, for messages, such as ``data.train.source=train.de``; default the path.
    """
    name = f"{label} ({path})" if label is not None else str(path)
    try:
        is_folder = path.is_dir()
        exists = path.exists()
    except OSError as error:  # a name that is too long, a parent folder that may not be searched
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error
    if is_folder:
        raise UserError(f"{name}: is a folder, not a file. Name the text file inside it.")
    if not exists and path.is_symlink():
        raise UserError(f"{name}: a link to {path.readlink()}, where there is no file.")
    if not exists:
        raise UserError(f"{name}: no such file.{_other_name(path)}")


def _other_name(path: Path) -> str:
    """A hint that names the compressed or uncompressed sister file, where there is one."""
    sister = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    if sister.is_file():
        return f" There is {sister.name} beside it."
    if not path.parent.is_dir():
        return f" Its folder {path.parent} does not exist either."
    return ""


def read_lines(path: Path, *, errors: str = "strict") -> Iterator[str]:
    """Yields the lines of a text file without their line ends; a file named ``.gz`` is unpacked on the way.

    Memory is bounded by the longest line. A last line without a newline is a line; an empty file has none.

    Args:
        path: a file or a named pipe.
        errors: ``strict`` or ``replace``, see `ENCODING_ERRORS`.

    Raises:
        UserError: the file is missing, a folder, not UTF-8 (named with its line), UTF-16, compressed though
            its name does not say so, or not gzip (or cut short) though its name says so.
    """
    check_readable(path)
    with _reading(path), open(path, "rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        yield from decode_lines(stream, str(path), errors=errors)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Rewords what goes wrong while a file is opened, read or unpacked."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise UserError(
            f"{path}: its name ends in .gz, but it is not a gzip file or is damaged ({error}). "
            "Rename it if it is plain text; else fetch it again."
        ) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is cut short or damaged ({error}). Fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_lines(stream: BufferedIOBase, name: str, *, errors: str = "strict") -> Iterator[str]:
    """Yields the decoded lines of a byte stream as they arrive. Memory is bounded by the longest line.

    Args:
        stream: bytes, such as ``sys.stdin.buffer``.
        name: what messages call the stream.
        errors: ``strict`` or ``replace``, see `ENCODING_ERRORS`.

    Raises:
        UserError: a line is not UTF-8, or the stream starts like UTF-16 or like a compressed file.
    """
    count = 0
    for block in _blocks(stream):
        if count == 0:
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
    """Whole lines, one or many at a time; the last one of a stream may lack its end. Without the byte order mark."""
    parts: list[bytes] = []  # of a line that has not ended
    first = True
    while data := stream.read1(_BLOCK):
        end = data.rfind(b"\n") + 1
        if end:
            block = b"".join([*parts, data[:end]])
            yield block.removeprefix(_BOM) if first else block
            parts, first = [], False
        if end < len(data):
            parts.append(data[end:])
    block = b"".join(parts)
    block = block.removeprefix(_BOM) if first else block
    if block:  # a file that holds nothing but the mark has no line at all
        yield block


def _lines(block: str) -> list[str]:
    """The lines of a block, without their ends."""
    lines = block.split("\n")
    if not lines[-1]:  # behind the last end
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if "\r" in block else lines


def _check_start(block: bytes, name: str) -> None:
    """Refuses a stream whose first line shows that it is not UTF-8 text at all."""
    line = block.split(b"\n", 1)[0].removesuffix(b"\r")
    for magic, kind in _COMPRESSED.items():
        if line.startswith(magic):
            fix = "Give it a name ending in .gz" if magic == b"\x1f\x8b" else "Unpack it first"
            raise UserError(f"{name}: is {kind}, not plain text. {fix}.")
    probe = line[:_PROBE]
    # Every second byte of ASCII text in UTF-16 is zero; real text holds a stray zero byte at most.
    if probe.startswith(_UTF16_OR_32) or (len(probe) >= 4 and probe.count(0) * 3 >= len(probe)):
        raise UserError(f"{name}: looks like UTF-16 or UTF-32, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
