import gzip
import io
import os
import threading
from pathlib import Path

import pytest

from seq2seq.data.text import decode_lines, read_lines
from seq2seq.errors import UserError


def lines_of(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return list(read_lines(path))


def arriving(content: bytes, size: int) -> io.BufferedReader:
    """A stream that gives no more than so many bytes at once."""
    return io.BufferedReader(io.BytesIO(content), buffer_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"\n", [""]),
        (b"a\n\n b \n", ["a", "", " b "]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\r\n", ["a\r"]),
        (b"a\rb\n", ["a\rb"]),
        (b"a\r", ["a"]),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n".encode(), ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfa\n", ["\ufeffa"]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [""]),
        (b"a\x00b\n", ["a\x00b"]),
        (b"\x00\x00a\r\n", ["\x00\x00a"]),
    ],
)
def test_only_newlines_end_lines(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert lines_of(tmp_path / "x.txt", content) == expected
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(content))
    assert list(read_lines(tmp_path / "x.txt.gz")) == expected
    for size in (1, 2, 5):  # bytes that arrive together
        assert list(decode_lines(arriving(content, size), "it")) == expected


def test_number_of_lines_is_that_of_newline_bytes(tmp_path: Path) -> None:
    content = os.urandom(200_000).replace(b"\x1f\x8b", b"") + b"\n"
    (tmp_path / "x").write_bytes(b"text\n" + content)
    assert sum(1 for _ in read_lines(tmp_path / "x", errors="replace")) == content.count(b"\n") + 1


def test_invalid_utf8_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with pytest.raises(UserError, match=r"x\.txt:2: not UTF-8: byte 0xe9 in column 4") as info:
        lines_of(path, b"fine\ncaf\xe9\n")
    assert "encoding_errors=replace" in str(info.value)
    assert list(read_lines(path, errors="replace")) == ["fine", "caf\ufffd"]
    lines = read_lines(path)
    assert next(lines) == "fine"  # what comes before it is good
    for size in (1, 3, 7, 100):
        with pytest.raises(UserError, match="it:4: not UTF-8: byte 0xe9 in column 3"):
            list(decode_lines(arriving(b"a\r\n\nb\nca\xe9\nd\n", size), "it"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_utf16_is_recognised_with_and_without_mark(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UserError, match=r"x\.txt: looks like UTF-16 or UTF-32"):
        lines_of(tmp_path / "x.txt", "Ein Haus am See.\nNoch eins.\n".encode(encoding))


@pytest.mark.parametrize(
    ("content", "kind"),
    [(gzip.compress(b"a\n", mtime=0), "gzip"), (b"PK\x03\x04rest", "zip archive"), (b"BZh91AY", "bzip2")],
    ids=["gzip", "zip", "bzip2"],
)
def test_compressed_file_without_the_name_is_recognised(tmp_path: Path, content: bytes, kind: str) -> None:
    with pytest.raises(UserError, match=kind):
        lines_of(tmp_path / "x.txt", content)


def test_gz_name_without_gzip_content(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.gz: its name ends in \.gz, but it is not a gzip file"):
        lines_of(tmp_path / "x.gz", b"plain\n")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:40] + b"\xff" * 20 + b[60:]])
def test_damaged_gzip(tmp_path: Path, damage) -> None:
    packed = gzip.compress("\n".join(map(str, range(5000))).encode())
    with pytest.raises(UserError, match=r"x\.gz.*damaged"):
        lines_of(tmp_path / "x.gz", damage(packed))


def test_missing_file_folder_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(read_lines(tmp_path / "x.txt"))
    with pytest.raises(UserError, match="is a folder"):
        list(read_lines(tmp_path))
    with pytest.raises(UserError, match=r"Its folder .* does not exist"):
        list(read_lines(tmp_path / "no" / "x.txt"))
    (tmp_path / "y.txt.gz").write_bytes(gzip.compress(b"a"))
    with pytest.raises(UserError, match=r"Did you mean y\.txt\.gz, in the same folder\?"):
        list(read_lines(tmp_path / "y.txt"))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_lines(tmp_path / ("x" * 300)))


def test_lines_come_out_of_a_pipe_as_they_arrive(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen = threading.Event()

    def write() -> None:
        with open(pipe, "wb", buffering=0) as file:
            file.write(b"one\n")
            assert seen.wait(10)
            file.write(b"two")

    writer = threading.Thread(target=write)
    writer.start()
    lines = read_lines(pipe)
    assert next(lines) == "one"
    seen.set()
    assert list(lines) == ["two"]
    writer.join()


def test_stream_is_called_by_its_name() -> None:
    with pytest.raises(UserError, match=r"^standard input:1: not UTF-8"):
        list(decode_lines(io.BytesIO(b"\xff"), "standard input"))
