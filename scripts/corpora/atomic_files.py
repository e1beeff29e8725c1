"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def all_or_none(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yields a temporary path per file; renames all of them to `paths` if the block succeeds."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        for source, target in zip(temporary, paths, strict=True):
            os.replace(source, target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextmanager
def text_files(paths: Sequence[Path]) -> Iterator[list[TextIO]]:
    """Yields an open UTF-8 text file per path, gzipped if named ``.gz``: all of them appear if the block succeeds."""
    with all_or_none(paths) as temporary, ExitStack() as stack:
        files: list[TextIO] = []
        for path, part in zip(paths, temporary, strict=True):
            raw = stack.enter_context(part.open("wb"))
            # no name and time in the gzip header: equal content gives equal bytes
            binary = stack.enter_context(gzip.GzipFile("", "wb", 9, raw, 0)) if path.suffix == ".gz" else raw
            files.append(stack.enter_context(io.TextIOWrapper(binary, encoding="utf-8", newline="\n")))
        yield files
