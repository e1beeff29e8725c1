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

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import download
from atomic_files import text_files

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
NEEDED = [f"train.tags.de-en.{x}" for x in LANGUAGES] + [
    f"IWSLT14.{name}.de-en.{x}.xml" for name in TEST_SETS for x in LANGUAGES
]
RESULTS = [f"{split}.{x}" for split in ("train", "valid", "test") for x in LANGUAGES]
_MEMBER = re.compile(rf"(?:\./)?(?:de-en/)?({'|'.join(map(re.escape, NEEDED))})")

Files = dict[str, str]  # name -> content


def read_files(source: Path) -> Files:
    """Reads the needed files from de-en.tgz, or from the folder that it unpacks to."""
    if source.is_file():
        members = download.read_members(
            source, _MEMBER, max_bytes=_MAX_UNPACKED_BYTES, max_member_bytes=_MAX_MEMBER_BYTES
        )
        return {match[1]: download.decode(content, match[0]) for match, content in members}
    root = source / "de-en" if (source / "de-en").is_dir() else source
    return {name: download.decode((root / name).read_bytes(), name) for name in NEEDED if (root / name).exists()}


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
    if missing := [name for name in NEEDED if name not in files]:
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
    with text_files([output / name for name in RESULTS]) as opened:
        columns = (column for pairs in splits.values() for column in zip(*pairs, strict=True))
        for file, column in zip(opened, columns, strict=True):
            file.writelines(sentence + "\n" for sentence in column)
    for split, pairs in splits.items():
        download.note(f"{split}: {len(pairs)} pairs")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = download.archive_options(
        arguments, corpus="IWSLT 2014 German-English", output=Path("data/iwslt14"), url=URL,
        local="the folder that de-en.tgz unpacks to",
    )  # fmt: skip
    return download.run(
        lambda: download.convert_archive(
            options, "de-en.tgz", max_bytes=_MAX_ARCHIVE_BYTES, results=RESULTS,
            convert=lambda source: convert(read_files(source), options.output),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
