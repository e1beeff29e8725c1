"""Files are whole or not there."""

import hashlib
import os
import threading

import pytest

from seq2seq.system.files import sha256_of, write_bytes


def test_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "newer" / "a.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two\r\n")
    assert path.read_bytes() == b"two\r\n"
    assert os.listdir(path.parent) == ["a.bin"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    (path / "inside").mkdir(parents=True)  # a folder that is not empty cannot be replaced by a file
    with pytest.raises(IsADirectoryError):
        write_bytes(path, b"x")
    assert os.listdir(tmp_path) == ["a"]


def test_readers_see_all_of_it(tmp_path):
    path = tmp_path / "a"
    contents = {bytes([letter]) * 200_000 for letter in b"ab"}
    write_bytes(path, next(iter(contents)))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_bytes() in contents for _ in range(200))
    finally:
        stop.set()
        writer.join()


def test_the_checksum_covers_a_file_of_several_blocks(tmp_path):
    content = b"0123456789abcdef" * 50_000
    write_bytes(tmp_path / "a", content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
