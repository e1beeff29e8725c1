"""Fetches IWSLT 2014 German-English and converts it to data/iwslt14/{train,valid,test}.{de,en}.

    python scripts/corpora/fetch_iwslt14.py
    python scripts/corpora/fetch_iwslt14.py --from path/to/de-en      # the unpacked archive

TED talks, Cettolo et al. 2014 (report on the 11th IWSLT evaluation campaign); licence CC BY-NC-ND. The splits are
those used in papers: every 23rd training pair is for validation, and dev2010, TEDX dev2012 and tst2010 to tst2012
together are the test set. Pairs of more than 175 tokens or with a length ratio above 1.5 are dropped from training
and validation. Text is neither tokenized nor lower-cased (published scores are often of lower-cased text: compare
`bleu_lc`). Tokens are counted by a simple rule, so the number of training pairs (about 160,000) differs slightly
from that of scripts with other tokenizers.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import download

URL = "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz"
LANGUAGES = ("de", "en")
TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
_VALID_EVERY = 23
_MAX_TOKENS = 175
_MAX_RATIO = 1.5
_MAX_ARCHIVE_BYTES = 128 << 20
_MAX_UNPACKED_BYTES = 1 << 30
_MAX_MEMBER_BYTES = 128 << 20
_TAGGED = ("<url>", "<talkid>", "<keywords>", "<speaker>", "<reviewer", "<translator")
_TITLE = re.compile(r"</?(?:title|description)>")
_SEGMENT = re.compile(r"<seg id=\"\d+\">(.*?)</seg>")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_MEMBER = re.compile(
    r"(?:\./)?(?:de-en/)?(train\.tags\.de-en\.(?:de|en)"
    rf"|IWSLT14\.(?:{'|'.join(map(re.escape, TEST_SETS))})\.de-en\.(?:de|en)\.xml)"
)

Files = dict[str, str]  # name -> content


def needed_files() -> list[str]:
    """Returns the names of the archive members that the conversion reads."""
    return [f"train.tags.de-en.{x}" for x in LANGUAGES] + [
        f"IWSLT14.{name}.de-en.{x}.xml" for name in TEST_SETS for x in LANGUAGES
    ]


def files_in_archive(archive: Path) -> Files:
    """Reads the needed files from de-en.tgz."""
    members = download.read_members(archive, _MEMBER, max_bytes=_MAX_UNPACKED_BYTES, max_member_bytes=_MAX_MEMBER_BYTES)
    return {name.rpartition("/")[2]: _decode(name, content) for name, content in members}


def files_in_folder(folder: Path) -> Files:
    """Reads the needed files from the unpacked archive."""
    root = folder / "de-en" if (folder / "de-en").is_dir() else folder
    return {name: _decode(name, (root / name).read_bytes()) for name in needed_files() if (root / name).exists()}


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise download.DownloadError(f"{name}: not UTF-8 ({error})") from error


def training_lines(text: str) -> list[str]:
    """Returns the sentences of a train.tags file, with titles and descriptions; drops other tagged lines."""
    lines = (line for line in text.split("\n") if not line.lstrip().startswith(_TAGGED))
    return [_TITLE.sub("", line).strip() for line in lines]


def segments(text: str) -> list[str]:
    """Returns the sentences of a test set's XML file, in order."""
    return [html.unescape(segment).strip() for segment in _SEGMENT.findall(text)]


def filter_pairs(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Drops pairs with an empty or too long side, or too large a length ratio."""
    for source, target in pairs:
        short, long = sorted((len(_TOKEN.findall(source)), len(_TOKEN.findall(target))))
        if short and long <= _MAX_TOKENS and long <= _MAX_RATIO * short:
            yield source, target


def _aligned(name: str, german: list[str], english: list[str]) -> list[tuple[str, str]]:
    if len(german) != len(english):
        raise download.DownloadError(
            f"{name}: {len(german)} German and {len(english)} English sentences; the numbers must be equal"
        )
    return list(zip(german, english, strict=True))


def convert(files: Files, output: Path) -> None:
    """Writes the splits as plain aligned files: all six or none.

    Raises:
        DownloadError: a file is missing, or the two sides of a file differ in the number of sentences.
    """
    if missing := [name for name in needed_files() if name not in files]:
        raise download.DownloadError(f"missing from the corpus: {', '.join(missing)}")
    sides = [training_lines(files[f"train.tags.de-en.{x}"]) for x in LANGUAGES]
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for number, pair in enumerate(filter_pairs(iter(_aligned("train.tags", *sides))), 1):
        splits["valid" if number % _VALID_EVERY == 0 else "train"].append(pair)
    for name in TEST_SETS:
        sides = [segments(files[f"IWSLT14.{name}.de-en.{x}.xml"]) for x in LANGUAGES]
        splits["test"] += _aligned(name, *sides)
    if empty := [split for split, pairs in splits.items() if not pairs]:
        raise download.DownloadError(f"no sentences found for {', '.join(empty)}: the layout has changed")
    names = [(split, side) for split in splits for side in (0, 1)]
    targets = [output / f"{split}.{LANGUAGES[side]}" for split, side in names]
    with download.all_or_none(targets) as paths:
        for (split, side), path in zip(names, paths, strict=True):
            path.write_bytes("".join(pair[side] + "\n" for pair in splits[split]).encode("utf-8"))
    for split, pairs in splits.items():
        download.note(f"{split}: {len(pairs)} pairs")


def build(output: Path, *, url: str, sha256: str | None, folder: Path | None) -> None:
    """Writes the corpus, downloaded or from a local copy; does nothing if all files exist."""
    if all((output / f"{split}.{x}").exists() for split in ("train", "valid", "test") for x in LANGUAGES):
        download.note(f"{output}: already exists")
        return
    if folder is not None:
        convert(files_in_folder(folder), output)
        return
    archive = output / "de-en.tgz"
    download.fetch(download.Remote(url, sha256, _MAX_ARCHIVE_BYTES), archive)
    convert(files_in_archive(archive), output)
    archive.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch and convert IWSLT 2014 German-English.")
    parser.add_argument("--output", type=Path, default=Path("data/iwslt14"))
    parser.add_argument("--from", dest="folder", type=Path, help="the folder that de-en.tgz unpacks to")
    parser.add_argument("--url", default=URL, help="another URL of de-en.tgz")
    parser.add_argument("--sha256", help="expected sha256 of the archive")
    options = parser.parse_args(arguments)
    return download.run(lambda: build(options.output, url=options.url, sha256=options.sha256, folder=options.folder))


if __name__ == "__main__":
    sys.exit(main())
