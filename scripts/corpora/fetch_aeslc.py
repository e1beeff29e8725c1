"""Fetches AESLC (e-mails and their subject lines) and converts it to data/aeslc/{train,dev,test}.jsonl.gz.

    python scripts/corpora/fetch_aeslc.py
    python scripts/corpora/fetch_aeslc.py --from path/to/AESLC      # a clone, or its folder enron_subject_line

The Annotated Enron Subject Line Corpus: Zhang and Tetreault 2019 (arXiv:1906.03497). Home:
https://github.com/ryanzhumich/AESLC. Licence CC BY-NC-SA 4.0. An e-mail is one `.subject` file: the body, a line
`@subject`, the subject, and in dev and test `@ann0` to `@ann2` with additional, human-written subjects.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import download

URL = "https://github.com/ryanzhumich/AESLC/archive/HEAD.tar.gz"
SPLITS = ("train", "dev", "test")
# of the uncompressed JSON lines: the bytes of the gzip file depend on the zlib version
CONTENT_SHA256 = {
    "train": "03a30f8748de48dbb2f8687243c6166a22b17de6c69c7af5013fe79d07bbc209",
    "dev": "e9e05b54b38ea612eb035e29a9d59a994f3051368c712235e29edfc47b4414cf",
}
_MEMBER = re.compile(r"[^/]+/enron_subject_line/(train|dev|test)/([^/]+)\.subject")
_MARK = re.compile(r"^@(subject|ann\d)[ \t\r]*$", re.MULTILINE)
_MAX_ARCHIVE_BYTES = 256 << 20
_MAX_UNPACKED_BYTES = 1 << 30
_MAX_EMAIL_BYTES = 4 << 20

Emails = Iterator[tuple[str, str, bytes]]  # split, id, content


def record(name: str, text: str) -> dict[str, object]:
    """Parses an e-mail into {id, body, subject} and, if there are additional subjects, annotations.

    Raises:
        DownloadError: the file has no `@subject` line.
    """
    body, *rest = _MARK.split(text)
    parts = dict(zip(rest[::2], (part.strip() for part in rest[1::2]), strict=True))
    if "subject" not in parts:
        raise download.DownloadError(f"{name}.subject: no line @subject")
    email: dict[str, object] = {"id": name, "body": body.strip(), "subject": parts.pop("subject")}
    if parts:
        email["annotations"] = [parts[key] for key in sorted(parts)]
    return email


def emails_in_archive(archive: Path) -> Emails:
    """Yields the e-mails in the archive of the corpus's repository."""
    members = download.read_members(archive, _MEMBER, max_bytes=_MAX_UNPACKED_BYTES, max_member_bytes=_MAX_EMAIL_BYTES)
    for name, content in members:
        match = _MEMBER.fullmatch(name)
        assert match is not None
        yield match[1], match[2], content


def emails_in_folder(folder: Path) -> Emails:
    """Yields the e-mails in a clone, or in its folder enron_subject_line.

    Raises:
        DownloadError: the folder of a split is missing.
    """
    nested = folder / "enron_subject_line"
    root = nested if nested.is_dir() else folder
    for split in SPLITS:
        if not (root / split).is_dir():
            raise download.DownloadError(f"{root / split}: no such folder; is {folder} a clone of the corpus?")
        for path in (root / split).glob("*.subject"):
            yield split, path.stem, path.read_bytes()


def convert(emails: Emails, output: Path) -> None:
    """Writes the e-mails as JSON lines sorted by id: all three splits or none."""
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for split, name, content in emails:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise download.DownloadError(f"{split}/{name}.subject: not UTF-8 ({error})") from error
        splits[split].append((name, json.dumps(record(name, text), ensure_ascii=False)))
    if empty := [split for split in SPLITS if not splits[split]]:
        raise download.DownloadError(f"no e-mails found for {', '.join(empty)}: the layout of the corpus has changed")
    with download.all_or_none([output / f"{split}.jsonl.gz" for split in SPLITS]) as paths:
        for split, path in zip(SPLITS, paths, strict=True):
            lines = "".join(line + "\n" for _, line in sorted(splits[split]))
            with download.gzip_text(path) as write:
                write(lines)
            _report(split, lines)


def _report(split: str, lines: str) -> None:
    digest = hashlib.sha256(lines.encode()).hexdigest()
    known = CONTENT_SHA256.get(split)
    count = lines.count("\n")
    if known == digest:
        download.note(f"{split}: {count} e-mails, checksum ok")
    elif known is None:
        download.note(f"warning: {split}: {count} e-mails, no checksum to compare with; sha256 is {digest}")
    else:
        download.note(f"warning: {split}: {count} e-mails, not the expected content (sha256 {digest}, not {known})")


def build(output: Path, *, url: str, sha256: str | None, folder: Path | None) -> None:
    """Writes the corpus, downloaded or from a local copy; does nothing if all files exist."""
    if all((output / f"{split}.jsonl.gz").exists() for split in SPLITS):
        download.note(f"{output}: already exists")
        return
    if folder is not None:
        convert(emails_in_folder(folder), output)
        return
    archive = output / "AESLC.tar.gz"
    download.fetch(download.Remote(url, sha256, _MAX_ARCHIVE_BYTES), archive)
    convert(emails_in_archive(archive), output)
    archive.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch and convert the AESLC corpus.")
    parser.add_argument("--output", type=Path, default=Path("data/aeslc"))
    parser.add_argument("--from", dest="folder", type=Path, help="a clone of the corpus's repository")
    parser.add_argument("--url", default=URL, help="another URL of the repository's .tar.gz")
    parser.add_argument("--sha256", help="expected sha256 of the archive")
    options = parser.parse_args(arguments)
    return download.run(lambda: build(options.output, url=options.url, sha256=options.sha256, folder=options.folder))


if __name__ == "__main__":
    sys.exit(main())
