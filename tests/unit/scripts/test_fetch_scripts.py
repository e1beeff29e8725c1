import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import download
import fetch_aeslc
import fetch_iwslt14
import fetch_multi30k
import pytest


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder and the address that it is served at."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def tar_of(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def json_lines(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


# Multi30k


@pytest.fixture
def captions(monkeypatch) -> dict[str, bytes]:
    files = {name: gzip.compress(name.encode(), mtime=0) for name in fetch_multi30k.SHA256}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(fetch_multi30k, "SHA256", sums)
    return files


def test_multi30k_has_every_file_of_three_languages():
    sets = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")
    assert set(fetch_multi30k.SHA256) == {f"{s}.{x}.gz" for s in sets for x in ("en", "de", "fr")}
    assert all(len(sha256) == 64 for sha256 in fetch_multi30k.SHA256.values())
    assert len(set(fetch_multi30k.SHA256.values())) == 15


def test_multi30k_is_fetched_and_then_left_alone(web, captions, tmp_path, capsys):
    folder, url = web
    for name, content in captions.items():
        (folder / name).write_bytes(content)
    arguments = ["--output", str(tmp_path / "out"), "--base-url", url + "/"]
    assert fetch_multi30k.main(arguments) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == captions
    for name in captions:
        (folder / name).unlink()
    assert fetch_multi30k.main(arguments) == 0
    assert capsys.readouterr().err.count("already exists") == 15


def test_multi30k_of_some_languages(web, captions, tmp_path):
    folder, url = web
    for name, content in captions.items():
        (folder / name).write_bytes(content)
    assert fetch_multi30k.main(["--output", str(tmp_path / "out"), "--base-url", url, "--languages", "en,de"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 10
    with pytest.raises(SystemExit):
        fetch_multi30k.main(["--languages", "en,xx"])


def test_multi30k_that_is_missing_from_its_home_ends_with_code_two(web, captions, tmp_path, capsys):
    assert fetch_multi30k.main(["--output", str(tmp_path / "out"), "--base-url", web[1]]) == 2
    message = capsys.readouterr().err
    assert "error: " in message
    assert "404" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("nested", ["", "data/task1/raw"])
def test_multi30k_from_a_clone(captions, tmp_path, capsys, nested):
    raw = tmp_path / "clone" / nested
    raw.mkdir(parents=True)
    for name, content in captions.items():
        if not name.startswith("test_2017_mscoco"):
            (raw / name).write_bytes(content)
    assert fetch_multi30k.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path / "clone")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert capsys.readouterr().err.count("warning") == 3


def test_multi30k_from_a_clone_with_another_file(captions, tmp_path, capsys):
    for name in captions:
        (tmp_path / name).write_bytes(b"other")
    assert fetch_multi30k.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path)]) == 2
    assert "not the official file" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


# AESLC

EMAIL = "Hi,\nthe draft is attached – see p. 3.\nJo\n\n@subject\nDraft attached\n"
RATED = EMAIL + "\n@ann0\nnew draft\n\n@ann1\ndraft\n\n@ann2\nplease read"
CORPUS = {
    "enron_subject_line/train/b_2.subject": EMAIL.encode(),
    "enron_subject_line/train/a_10.subject": b"Short.\n\n@subject\nWords",
    "enron_subject_line/dev/c_1.subject": RATED.encode(),
    "enron_subject_line/test/d_1.subject": RATED.encode(),
    "README.md": b"about",
}


def check_aeslc(output: Path) -> None:
    assert sorted(p.name for p in output.iterdir()) == ["dev.jsonl.gz", "test.jsonl.gz", "train.jsonl.gz"]
    assert json_lines(output / "train.jsonl.gz") == [
        {"id": "a_10", "body": "Short.", "subject": "Words"},
        {"id": "b_2", "body": "Hi,\nthe draft is attached – see p. 3.\nJo", "subject": "Draft attached"},
    ]
    (rated,) = json_lines(output / "dev.jsonl.gz")
    assert rated["annotations"] == ["new draft", "draft", "please read"]
    assert list(rated) == ["id", "body", "subject", "annotations"]


def test_aeslc_from_the_archive_and_then_left_alone(web, tmp_path, capsys):
    folder, url = web
    sha256 = tar_of(folder / "a.tar.gz", {f"AESLC-1/{name}": content for name, content in CORPUS.items()})
    output = tmp_path / "out"
    arguments = ["--output", str(output), "--url", f"{url}/a.tar.gz", "--sha256", sha256]
    assert fetch_aeslc.main(arguments) == 0
    check_aeslc(output)
    assert "not the expected content" in capsys.readouterr().err
    (folder / "a.tar.gz").unlink()
    assert fetch_aeslc.main(arguments) == 0


@pytest.mark.parametrize("nested", ["", "enron_subject_line"])
def test_aeslc_from_a_clone(tmp_path, nested):
    for name, content in CORPUS.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert fetch_aeslc.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path / "clone" / nested)]) == 0
    check_aeslc(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enron_subject_line/dev/c_1.subject": b"no mark"}, "no line @subject"),
        ({"enron_subject_line/dev/c_1.subject": b"\xff\n@subject\nx"}, "not UTF-8"),
        ({"enron_subject_line/dev/c_1.subject": None}, "no e-mails found for dev"),
    ],
)
def test_aeslc_that_is_odd_leaves_no_files(web, tmp_path, capsys, change, message):
    folder, url = web
    files = {name: content for name, content in (CORPUS | change).items() if content is not None}
    tar_of(folder / "a.tar.gz", {f"AESLC-1/{name}": content for name, content in files.items()})
    assert fetch_aeslc.main(["--output", str(tmp_path / "out"), "--url", f"{url}/a.tar.gz"]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["AESLC.tar.gz"]


def test_aeslc_converts_to_the_known_content(tmp_path, capsys):
    source = Path(os.environ.get("SEQ2SEQ_DATA", "no such folder")) / "aeslc"
    if not (source / "dev.jsonl.gz").exists():
        pytest.skip("set SEQ2SEQ_DATA to a folder with aeslc/dev.jsonl.gz")
    for record in json_lines(source / "dev.jsonl.gz"):
        text = f"{record['body']}\n\n@subject\n{record['subject']}\n\n"
        text += "\n\n".join(f"@ann{i}\n{a}" for i, a in enumerate(record["annotations"]))
        for split in ("train", "dev", "test"):
            path = tmp_path / split / f"{record['id']}.subject"
            path.parent.mkdir(exist_ok=True)
            if split == "dev" or not list(path.parent.iterdir()):
                path.write_bytes(text.encode())
    assert fetch_aeslc.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path)]) == 0
    assert "dev: 1960 e-mails, checksum ok" in capsys.readouterr().err


# IWSLT 2014


def iwslt_files() -> dict[str, bytes]:
    files = {}
    for language in ("de", "en"):
        lines = ["<url>http://x</url>", "<keywords>talks, x</keywords>", "<talkid>1</talkid>"]
        lines += ["<title>A title</title>", "<description>What it is about.</description>"]
        lines += [f" Sentence {i} in {language} . " for i in range(3, 50)]
        lines += ["", "word " * 176, "one two three four five" if language == "de" else "one"]
        lines += ["<reviewer>X</reviewer>"] if language == "en" else []
        files[f"train.tags.de-en.{language}"] = "\n".join(lines).encode()
        for name in fetch_iwslt14.TEST_SETS:
            xml = '<?xml version="1.0"?>\n<mteval>\n<doc>\n<title>T</title>\n'
            xml += f'<seg id="1"> {name} {language} &amp; more </seg>\n<seg id="2">second</seg>\n</doc>\n</mteval>'
            files[f"IWSLT14.{name}.de-en.{language}.xml"] = xml.encode()
    return files


def check_iwslt(output: Path) -> None:
    splits = {p.name: p.read_text(encoding="utf-8").split("\n")[:-1] for p in output.iterdir()}
    assert set(splits) == {f"{split}.{x}" for split in ("train", "valid", "test") for x in ("de", "en")}
    # 49 pairs are left of training: the title, the description and 47 sentences; each 23rd is for validation
    assert splits["valid.de"] == ["Sentence 23 in de .", "Sentence 46 in de ."]
    assert len(splits["train.de"]) == len(splits["train.en"]) == 47
    assert splits["train.en"][:3] == ["A title", "What it is about.", "Sentence 3 in en ."]
    assert len(splits["test.de"]) == len(splits["test.en"]) == 10
    assert splits["test.en"][:3] == ["TED.dev2010 en & more", "second", "TEDX.dev2012 en & more"]


@pytest.mark.parametrize("prefix", ["de-en/", "./de-en/"])
def test_iwslt14_from_the_archive(web, tmp_path, prefix):
    folder, url = web
    tar_of(folder / "x.tgz", {prefix + name: content for name, content in iwslt_files().items()})
    arguments = ["--output", str(tmp_path / "out"), "--url", f"{url}/x.tgz"]
    assert fetch_iwslt14.main(arguments) == 0
    check_iwslt(tmp_path / "out")
    (folder / "x.tgz").unlink()
    assert fetch_iwslt14.main(arguments) == 0


@pytest.mark.parametrize("nested", ["", "de-en"])
def test_iwslt14_from_a_folder(tmp_path, nested):
    root = tmp_path / "in" / "de-en"
    root.mkdir(parents=True)
    for name, content in iwslt_files().items():
        (root / name).write_bytes(content)
    assert fetch_iwslt14.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path / "in" / nested)]) == 0
    check_iwslt(tmp_path / "out")


def test_iwslt14_with_a_missing_file_names_it(tmp_path, capsys):
    for name, content in iwslt_files().items():
        if name != "IWSLT14.TED.tst2011.de-en.en.xml":
            (tmp_path / name).write_bytes(content)
    assert fetch_iwslt14.main(["--output", str(tmp_path / "out"), "--from", str(tmp_path)]) == 2
    assert "IWSLT14.TED.tst2011.de-en.en.xml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_iwslt14_that_is_not_aligned_is_refused():
    files = {name: content.decode() for name, content in iwslt_files().items()}
    files["train.tags.de-en.de"] += "\none more"
    with pytest.raises(download.DownloadError, match="53 German and 52 English"):
        fetch_iwslt14.convert(files, Path("never"))
