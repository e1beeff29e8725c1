import gzip
import hashlib
import io
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import download
import pytest
from atomic_files import all_or_none
from download import DownloadError, Remote

CONTENT = gzip.compress(bytes(range(256)) * 3000, mtime=0) + gzip.compress(b"tail", mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut` sends only so many bytes of an answer, `refuse` answers with codes first."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []
        self.refuse: list[int] = []
        self.ranges = True
        self.shift = 0  # answers a range from so many bytes behind the place that was asked for
        self.length: str | None = None  # announced in place of the true one
        self.stalls: list[int] = []  # bytes after which an answer stops without an end
        self.over = threading.Event()
        self.seen: list[str | None] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.seen.append(wanted)
        if self.server.refuse:
            self.send_error(self.server.refuse.pop(0))
            return
        body = self.server.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        start += self.server.shift if start else 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", self.server.length or str(len(body) - start))
        self.end_headers()
        if self.server.stalls:
            self.wfile.write(body[start : start + self.server.stalls.pop(0)])
            self.server.over.wait(60)
            return
        send = self.server.cut.pop(0) if self.server.cut else len(body)
        self.wfile.write(body[start : start + send])


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.files["x.gz"] = CONTENT
        yield found
        found.over.set()
        found.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "data" / "x.gz"


def no_pause(_: float) -> None:
    pass


def left_over(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir()) if target.parent.exists() else []


# Downloads


def test_a_file_is_fetched_once(server, target):
    remote = Remote(server.url("x.gz"), SHA256)
    assert download.fetch(remote, target, pause=no_pause)
    assert target.read_bytes() == CONTENT
    assert left_over(target) == ["x.gz"]
    assert not download.fetch(remote, target, pause=no_pause)
    assert len(server.seen) == 1


def test_a_wrong_checksum_leaves_nothing(server, target):
    with pytest.raises(DownloadError, match=f"sha256 {SHA256}, expected 000"):
        download.fetch(Remote(server.url("x.gz"), "0" * 64), target, pause=no_pause)
    assert left_over(target) == []


def test_an_unknown_checksum_is_printed(server, target, capsys):
    assert download.fetch(Remote(server.url("x.gz"), None), target, pause=no_pause)
    assert SHA256 in capsys.readouterr().err


def test_a_present_file_that_is_another_is_not_overwritten(server, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="not the official file"):
        download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == b"mine"
    assert server.seen == []


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_missing_file_is_asked_for_once(server, target, code):
    server.refuse = [code]
    with pytest.raises(DownloadError, match=f"answered {code}"):
        download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert len(server.seen) == 1
    assert left_over(target) == []


def test_a_busy_server_is_asked_again_after_longer_pauses(server, target):
    server.refuse = [503, 429, 500]
    pauses: list[float] = []
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0]
    assert target.read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_where_it_ended(server, target):
    server.cut = [1000, 70]
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=1000-", "bytes=1070-"]


def test_a_server_that_falls_silent_is_asked_again_for_the_rest(server, target):
    server.stalls = [1000, 0]
    waits = []
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=waits.append, timeout=0.3)
    assert target.read_bytes() == CONTENT
    assert len(waits) == 2


def test_a_server_that_stays_silent_leaves_the_part_and_names_the_way_out(server, target):
    server.stalls = [0] * 5
    with pytest.raises(DownloadError, match=r"timed out .*5 attempts.*Without a network"):
        download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause, timeout=0.1)
    assert not target.exists()


def test_a_server_that_goes_on_from_another_place_is_asked_for_all_of_it(server, target):
    server.cut, server.shift = [1000], 7
    assert download.fetch(Remote(server.url("x.gz"), None), target, pause=no_pause)
    assert target.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=1000-", None]


def test_a_length_that_is_no_number_is_passed_over(server, target):
    server.length = "much"
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == CONTENT


def test_the_part_of_an_earlier_run_is_kept_and_used(server, target):
    server.cut = [500, 0, 0, 0, 0]
    remote = Remote(server.url("x.gz"), SHA256)
    with pytest.raises(DownloadError, match=r"the connection ended at 500 of \d+ bytes \(5 attempts\)"):
        download.fetch(remote, target, pause=no_pause)
    assert left_over(target) == ["x.gz.part"]
    server.seen.clear()
    assert download.fetch(remote, target, pause=no_pause)
    assert server.seen == ["bytes=500-"]
    assert target.read_bytes() == CONTENT
    assert left_over(target) == ["x.gz"]


def test_a_part_of_something_else_is_thrown_away(server, target):
    target.parent.mkdir()
    target.with_name("x.gz.part").write_bytes(b"\x1f\x8b" + b"other" * 20)
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == CONTENT
    assert server.seen == ["bytes=102-", None]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_complete_or_too_long(server, target, extra):
    target.parent.mkdir()
    target.with_name("x.gz.part").write_bytes(CONTENT + extra)
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == (2 if extra else 1)


def test_a_server_without_ranges_sends_all_of_it_again(server, target):
    server.ranges = False
    server.cut = [1000]
    assert download.fetch(Remote(server.url("x.gz"), SHA256), target, pause=no_pause)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><html>Please log in</html>", "the server sent a web page instead"),
        (b"\n <html>", "the server sent a web page instead"),
        (b"PK\x03\x04", "not a gzip file"),
    ],
)
def test_something_else_than_the_archive_is_recognised(server, target, body, message):
    server.files["x.gz"] = body
    with pytest.raises(DownloadError, match=message):
        download.fetch(Remote(server.url("x.gz"), None), target, pause=no_pause)
    assert left_over(target) == []
    assert len(server.seen) == 1


def test_an_empty_answer_is_no_file(server, target):
    server.files["x.gz"] = b""
    with pytest.raises(DownloadError):
        download.fetch(Remote(server.url("x.gz"), None), target, pause=no_pause)
    assert left_over(target) == []


def test_an_answer_of_implausible_size_is_refused(server, target):
    with pytest.raises(DownloadError, match="plausible"):
        download.fetch(Remote(server.url("x.gz"), SHA256, max_bytes=100), target, pause=no_pause)
    assert left_over(target) == []


def test_without_a_network_the_way_out_is_named(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/x.gz"
    with pytest.raises(DownloadError, match="on another machine") as refused:
        download.fetch(Remote(url, None), target, pause=no_pause)
    assert url in str(refused.value)
    assert str(target) in str(refused.value)


def test_a_full_disk_is_not_mistaken_for_the_network(server, target):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    target.parent.mkdir()
    target.with_name("x.gz.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        download.fetch(Remote(server.url("x.gz"), None), target, pause=no_pause)
    assert len(server.seen) == 1


# Archives

WANTED = re.compile(r"top/[a-z]+\.txt")


@contextmanager
def archive(path: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(path, "w:gz") as tar:
        yield tar


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **attributes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def members(path: Path, *, max_bytes: int = 1 << 20, max_member_bytes: int = 1 << 16) -> dict[str, bytes]:
    found = download.read_members(path, WANTED, max_bytes=max_bytes, max_member_bytes=max_member_bytes)
    return {match[0]: content for match, content in found}


def test_only_wanted_members_are_read_and_nothing_is_written(tmp_path):
    path = tmp_path / "in" / "a.tgz"
    path.parent.mkdir()
    with archive(path) as tar:
        add(tar, "top/a.txt", b"first")
        add(tar, "../top/b.txt")
        add(tar, "/top/c.txt")
        add(tar, "top/../d.txt")
        add(tar, "top/e.exe")
        add(tar, "top/link", type=tarfile.SYMTYPE, linkname="/etc/passwd", content=b"")
        add(tar, "top/z.txt", b"last")
    assert members(path) == {"top/a.txt": b"first", "top/z.txt": b"last"}
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.tgz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_wanted_name_that_is_no_plain_file_is_refused(tmp_path, kind):
    with archive(tmp_path / "a.tgz") as tar:
        add(tar, "top/a.txt", b"", type=kind, linkname="/etc/passwd")
    with pytest.raises(DownloadError, match=r"top/a\.txt is not a plain file"):
        members(tmp_path / "a.tgz")


def test_a_large_member_is_refused(tmp_path):
    with archive(tmp_path / "a.tgz") as tar:
        add(tar, "top/a.txt", bytes(70_000))
    with pytest.raises(DownloadError, match="70000 bytes, more than 65536"):
        members(tmp_path / "a.tgz")


def test_a_bomb_is_refused_even_in_members_that_are_passed_over(tmp_path):
    with archive(tmp_path / "a.tgz") as tar:
        add(tar, "top/bomb.bin", bytes(30 << 20))
        add(tar, "top/a.txt")
    assert (tmp_path / "a.tgz").stat().st_size < 100_000
    with pytest.raises(DownloadError, match="unpacks to more than 1048576 bytes"):
        members(tmp_path / "a.tgz")


@pytest.mark.parametrize("damage", ["cut", "flipped", "no tar"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "a.tgz"
    with archive(path) as tar:
        add(tar, "top/a.txt", bytes(range(256)) * 200)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(gzip.compress(b"not a tar file " * 1000))
    path.write_bytes(content)
    with pytest.raises(DownloadError, match=r"a\.tgz: damaged archive"):
        members(path)


def test_results_appear_together_or_not_at_all(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]

    def fail() -> None:
        with all_or_none(paths) as temporary:
            temporary[0].write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with all_or_none(paths) as temporary:
        for path in temporary:
            path.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
