"""Fetches AESLC (e-mails and their subject lines) and converts it to data/aeslc/{train,dev,test}.jsonl.gz.

    python scripts/corpora/fetch_aeslc.py
    python scripts/corpora/fetch_aeslc.py --from path/to/AESLC      # a clone, or its folder enron_subject_line

The Annotated Enron Subject Line Corpus: Zhang and Tetreault 2019 (arXiv:1906.03497). Home:
https://github.com/ryanzhumich/AESLC. Licence CC BY-NC-SA 4.0. An e-mail is one `.subject` file: the body, a line
`@subject`, the subject, and in dev and test `@ann0` to `@ann2` with additional, human-written subjects.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import download
from atomic_files import all_or_none

URL = "https://github.com/ryanzhumich/AESLC/archive/HEAD.tar.gz"
SPLITS = ("train", "dev", "test")
RESULTS = [f"{split}.jsonl.gz" for split in SPLITS]
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


def emails(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yields split, id and content of the e-mails in the archive or a clone, or in its folder enron_subject_line.

    Raises:
        DownloadError: the archive is damaged, or the folder of a split is missing.
    """
    if source.is_file():
        members = download.read_members(
            source, _MEMBER, max_bytes=_MAX_UNPACKED_BYTES, max_member_bytes=_MAX_EMAIL_BYTES
        )
        for match, content in members:
            yield match[1], match[2], content
        return
    nested = source / "enron_subject_line"
    root = nested if nested.is_dir() else source
    for split in SPLITS:
        if not (root / split).is_dir():
            raise download.DownloadError(f"{root / split}: no such folder; is {source} a clone of the corpus?")
        for path in (root / split).glob("*.subject"):
            yield split, path.stem, path.read_bytes()


def convert(source: Path, output: Path) -> None:
    """Writes the e-mails of an archive or a clone as JSON lines sorted by id: all three splits or none."""
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for split, name, content in emails(source):
        email = record(name, download.decode(content, f"{split}/{name}.subject"))
        splits[split].append((name, json.dumps(email, ensure_ascii=False)))
    if empty := [split for split in SPLITS if not splits[split]]:
        raise download.DownloadError(f"no e-mails found for {', '.join(empty)}: the layout of the corpus has changed")
    with all_or_none([output / name for name in RESULTS]) as paths:
        for split, path in zip(SPLITS, paths, strict=True):
            lines = "".join(line + "\n" for _, line in sorted(splits[split]))
            # no name and time in the gzip header: equal content gives equal bytes
            with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as file:
                file.write(lines.encode("utf-8"))
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


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = download.archive_options(
        arguments, corpus="the AESLC corpus", output=Path("data/aeslc"), url=URL,
        local="a clone of the corpus's repository",
    )  # fmt: skip
    return download.run(
        lambda: download.convert_archive(
            options, "AESLC.tar.gz", max_bytes=_MAX_ARCHIVE_BYTES, results=RESULTS,
            convert=lambda source: convert(source, options.output),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
