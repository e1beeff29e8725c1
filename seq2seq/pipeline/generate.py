"""`seq2seq generate`: writes one output line per input line, in order."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from seq2seq.config.commands import GenerateConfig, GenerateFormat
from seq2seq.data.corpus import is_jsonl, read_records, text_field
from seq2seq.data.text import decode_lines, read_lines
from seq2seq.errors import UserError
from seq2seq.inference.generator import GenerationOutput, Generator
from seq2seq.pipeline.build import start_runtime
from seq2seq.pipeline.load import build_generator
from seq2seq.pipeline.results import one_line
from seq2seq.runs.folder import RunFolder
from seq2seq.system.console import console_log

logger = logging.getLogger("seq2seq")


def generate(config: GenerateConfig, folders: Sequence[RunFolder]) -> None:
    """Reads, generates and writes in blocks of bounded memory; on a terminal and with `stream=true`, line by line."""
    with console_log():
        texts = _read_sources(config)
        runtime = start_runtime(config.trainer)
        generator = build_generator(folders, config, checkpoint=config.checkpoint, runtime=runtime)
        block = 1 if config.stream or (config.input is None and sys.stdin.isatty()) else None
        flush_lines = config.stream or (config.output is None and sys.stdout.isatty())
        need_attention = config.attention or config.alignments
        with nullcontext(sys.stdout.buffer) if config.output is None else _output_file(Path(config.output)) as file:
            for outputs in generator.stream(texts, block=block, need_attention=need_attention):
                file.write(output_line(outputs, config))
                if flush_lines:
                    file.flush()
            _warn_about_sources(generator)


def _warn_about_sources(generator: Generator) -> None:
    """Warns once, at the end, of truncated and unknown sources."""
    if generator.truncated:
        logger.warning(
            "sources longer than data.max_source_length=%d tokens, which were truncated: %d",
            generator.max_source_length,
            generator.truncated,
        )
    if generator.unknown:
        logger.warning("sources of which the tokenizer knows no token: %d", generator.unknown)


def _read_sources(config: GenerateConfig) -> Iterable[str]:
    errors = config.data.encoding_errors
    if config.input is None:
        return decode_lines(cast(BufferedIOBase, sys.stdin.buffer), "standard input", errors=errors)
    path = Path(config.input)
    if is_jsonl(path.name):
        return _read_records(path, config, errors)
    return read_lines(path, errors=errors)


def _read_records(path: Path, config: GenerateConfig, errors: str) -> Iterator[str]:
    train = config.data.train
    field = train.source_field or "source"
    if train.path is not None and not is_jsonl(train.path) and field.isdigit():
        field = "source"  # the run's own is the column of a TSV file
    for line_number, record in read_records(path, errors=errors):
        yield text_field(record, field, f"{path}:{line_number}", key="data.train.source_field")


@contextmanager
def _output_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file under a temporary name and renames it once it is complete; opens a device or pipe directly.

    Of several processes with one output, each writes a file of its own, and the last to finish wins whole.

    Links are followed: ``/dev/stdout`` is one, and leads to a file where standard output is redirected.

    Raises:
        UserError: If the file cannot be created.
        OSError: If it cannot be written completely; has the file's name. An earlier file of that name is kept.
    """
    target = Path(os.path.realpath(path))
    special = target.exists() and not target.is_file()
    temporary = target if special else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        file = temporary.open("wb")
    except OSError as error:
        raise UserError(f"output={path}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        if not special:
            temporary.replace(target)
    except OSError as error:
        error.filename = error.filename or str(path)  # write errors have no name
        raise
    finally:
        if not special:
            temporary.unlink(missing_ok=True)


def output_line(outputs: list[GenerationOutput], config: GenerateConfig) -> bytes:
    """Formats the outputs of one source: the best one as text, or all of them as JSON."""
    if config.format is GenerateFormat.text:
        return one_line(outputs[0].text).encode() + b"\n"
    nbest = [_record(output, config) for output in outputs]
    return json.dumps({"text": outputs[0].text, "nbest": nbest}, ensure_ascii=False).encode() + b"\n"


def _record(output: GenerationOutput, config: GenerateConfig) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": output.text, "score": output.score, "log_prob": output.log_prob, "tokens": output.tokens,
    }  # fmt: skip
    if config.attention or config.alignments:
        record["source_tokens"] = output.source_tokens
    if output.attention is not None and config.attention:
        record["attention"] = [[round(float(weight), 6) for weight in row] for row in output.attention]
    if output.copied is not None and config.attention:
        record["copied"] = [round(share, 6) for share in output.copied]
    if output.attention is not None and config.alignments:
        record["alignments"] = [int(row.argmax()) for row in output.attention]
    return record
