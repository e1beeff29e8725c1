"""Counts the names and numbers that summaries get right.

    python scripts/corpora/score_facts.py outputs/demo_summarization
    python scripts/corpora/score_facts.py outputs/with_copying outputs/without --test-set test
    python scripts/corpora/score_facts.py summaries.txt --records data/demo_summarization/test.jsonl

Each record lists under `facts` the names and numbers of its reference summary, verbatim; those with a digit count as
numbers, the others as names. Prints, with 95 % bootstrap intervals over the records:

- right: the share of the facts that the output contains verbatim;
- precise: the share of the words of names and numbers in the output that belong to the record's facts. Such a word has
  a digit or a capital letter and occurs in reference summaries only as part of a fact. Wrong words are divided into
  those that occur in the document (the wrong fact was selected) and those that do not (misspelled or made up).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.config import saved
from seq2seq.data.corpus import corpus_files, read_records, resolve_root, text_field
from seq2seq.data.text import read_lines
from seq2seq.errors import UserError

KINDS = ("names", "numbers")
_WORD = re.compile(r"\w(?:[\w.,:'&/-]*\w)?")
_RESAMPLES = 1000


@dataclass(frozen=True)
class Record:
    """One example of a test set: document, reference summary, and the names and numbers of the latter."""

    document: str
    summary: str
    facts: tuple[str, ...]


def kind_of(text: str) -> str:
    """Returns "numbers" for a fact or word with a digit, else "names"."""
    return "numbers" if any(c.isdigit() for c in text) else "names"


def words_of(text: str) -> list[str]:
    """Returns the words of a text without surrounding punctuation; 1,200, 3-1 and O'Nal are one word each."""
    return [word.removesuffix("'s") for word in _WORD.findall(text)]


def holds(text: str, fact: str) -> bool:
    """Whether the text contains the fact verbatim, not as part of a longer word or number."""
    before = r"(?<!\d[.,:-])" if fact[:1].isdigit() else ""
    after = r"(?![.,:-]\d)" if fact[-1:].isdigit() else ""
    return re.search(rf"(?<!\w){before}{re.escape(fact)}(?!\w){after}", text) is not None


def ordinary_words(records: Sequence[Record]) -> frozenset[str]:
    """Returns the words of the reference summaries outside of facts, such as a capitalized first word."""
    words: set[str] = set()
    for record in records:
        rest = record.summary
        for fact in sorted(record.facts, key=len, reverse=True):
            rest = rest.replace(fact, " ")
        words.update(words_of(rest))
    return frozenset(words)


def count(output: str, record: Record, ordinary: frozenset[str]) -> dict[str, Counter[str]]:
    """Counts, by kind, how many `facts` there are, how many are `right`, and the `words`, `precise`, `misplaced`."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for fact in record.facts:
        counts[kind_of(fact)].update(facts=1, right=int(holds(output, fact)))
    expected = Counter(word for fact in record.facts for word in words_of(fact))
    document_words = set(words_of(record.document))
    for word in words_of(output):
        if word in ordinary or (word == word.lower() and kind_of(word) == "names"):
            continue
        precise = expected[word] > 0  # a word repeated more often than in the facts counts as wrong
        expected[word] -= 1
        misplaced = not precise and word in document_words
        counts[kind_of(word)].update(words=1, precise=int(precise), misplaced=int(misplaced))
    return counts


def share(part: Sequence[int], whole: Sequence[int], *, seed: int) -> str:
    """Formats the ratio of two sums over the records in percent, with its 95 % interval.

    This is the percentile bootstrap interval (Efron and Tibshirani 1993, "An introduction to the bootstrap", section
    13.3): records are drawn with replacement and the ratio of the sums is recomputed.
    """
    if not sum(whole):
        return "-"
    parts, wholes = np.asarray(part), np.asarray(whole)
    drawn = np.random.default_rng(seed).integers(0, len(parts), (_RESAMPLES, len(parts)))
    sums = wholes[drawn].sum(axis=1)
    ratios = parts[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return f"{100 * parts.sum() / wholes.sum():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(outputs: Sequence[str], records: Sequence[Record], *, seed: int) -> str:
    """Formats the scores as a Markdown table.

    Args:
        outputs: One text per record.
        records: The records, in the same order.
        seed: Seed of the bootstrap.

    Raises:
        UserError: The numbers of outputs and records differ, or there are none.
    """
    if len(outputs) != len(records) or not records:
        raise UserError(
            f"{len(outputs)} outputs for {len(records)} records: there must be one output per record, and at least one"
        )
    ordinary = ordinary_words(records)
    counts = [count(output, record, ordinary) for output, record in zip(outputs, records, strict=True)]
    rows = {kind: [found[kind] for found in counts] for kind in KINDS}
    rows["all"] = [found["names"] + found["numbers"] for found in counts]
    lines = [
        "| kind | facts | right, % | words in the output | precise, % | wrong, in the document | wrong, nowhere |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, found in rows.items():
        facts, right, words, precise = ([one[name] for one in found] for name in ("facts", "right", "words", "precise"))
        misplaced = sum(one["misplaced"] for one in found)
        nowhere = sum(words) - sum(precise) - misplaced
        cells = (kind, sum(facts), share(right, facts, seed=seed), sum(words), share(precise, words, seed=seed))
        lines.append("| " + " | ".join(map(str, (*cells, misplaced, nowhere))) + " |")
    complete = [int(one["right"] == one["facts"]) for one in rows["all"]]
    lines.append(f"\nall facts of a summary right: {share(complete, [1] * len(complete), seed=seed)} %")
    return "\n".join(lines)


def read_facts(path: Path, *, document: str = "document", summary: str = "summary") -> list[Record]:
    """Reads the records of a JSONL file.

    Args:
        path: The file.
        document: Name of the document field.
        summary: Name of the summary field.

    Raises:
        UserError: The file cannot be read, or a record lacks a field.
    """
    return [_record(fields, document, summary, f"{path}:{number}") for number, fields in read_records(path)]


def _record(fields: dict[str, Any], document: str, summary: str, location: str) -> Record:
    texts = text_field(fields, document, location), text_field(fields, summary, location)
    facts = fields.get("facts")
    if not isinstance(facts, list) or not all(isinstance(fact, str) and fact for fact in facts):
        raise UserError(f"{location}: field 'facts' must list the names and numbers of the summary; found {facts!r}")
    return Record(*texts, tuple(facts))


def read_run(run: Path, test_set: str | None) -> tuple[list[str], list[Record]]:
    """Reads the outputs of a run on a test set, and the records of the test set.

    Args:
        run: The run folder.
        test_set: One of `data.test`; may be None if there is only one.

    Raises:
        UserError: The run has no such test set, or several and none was named; the test set is not a JSONL file; a
            file is missing.
    """
    data = saved.load(run / "config.yaml").data
    names = ", ".join(data.test)
    name = test_set or names
    if name not in data.test:
        raise UserError(f"--test-set={test_set}: name one of the test sets of {run}: {names or 'it has none'}")
    key = f"data.test.{name}"
    files = corpus_files(data.test[name], resolve_root(data.root), key)
    if f"{key}.path" not in files:
        raise UserError(f"{key} of {run}: needs a JSONL file with facts, not two aligned files")
    fields = {"document": data.test[name].source_field or "source", "summary": data.test[name].target_field or "target"}
    return list(read_lines(run / "generations" / f"{name}.txt")), read_facts(files[f"{key}.path"], **fields)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="+", type=Path, help="run folders, or files with one summary per line")
    parser.add_argument("--records", type=Path, help="JSONL with document, summary and facts, for files")
    parser.add_argument("--test-set", help="test set of a run (default: its only one)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the bootstrap")
    options = parser.parse_args(arguments)
    try:
        for path in options.outputs:
            if path.is_dir():
                outputs, records = read_run(path, options.test_set)
            elif options.records is None:
                parser.error(f"{path} is not a run folder: give the file of its records with --records")
            else:
                outputs, records = list(read_lines(path)), read_facts(options.records)
            print(f"{path}\n\n{table(outputs, records, seed=options.seed)}\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
