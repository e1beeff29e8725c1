"""Where a sentence ends: one rule for ROUGE-Lsum, the lead baseline and the extractive oracle."""

import re

# Marks that are followed by a space end a sentence, with the closing quotes and brackets behind them. The wide
# marks of Chinese and Japanese need no space. A full stop after a single letter or digit is taken for an
# initial, an abbreviation or the number of a list item: J. Smith, 9 a.m., U.S., 1. Agenda.
_CLOSING = r"[\"'\u2019\u201d\u00bb)\]\u300d\u300f\uff09]*"
_SPACED_END = rf"(?:(?<!\b\w)\.|\.(?=[.!?\u061f])|[!?\u061f])[.!?\u061f]*{_CLOSING}(?=\s)"
_WIDE_END = rf"[\u3002\uff01\uff1f]+{_CLOSING}"
_END = re.compile(f"{_SPACED_END}|{_WIDE_END}")


def split_sentences(text: str) -> list[str]:
    """Splits a text into sentences, stripped of outer space; empty ones are left out.

    A sentence ends at a line break, or after end marks: `.`, `!`, `?` and `؟` where space follows, `。`, `！` and
    `？` anywhere; closing quotes and brackets belong to it. A full stop after a single letter or digit ends none.
    It is a rule, not a model: "etc. Then" and "Dr. Who" are cut.
    """
    sentences = []
    for line in text.split("\n"):
        start = 0
        for end in _END.finditer(line):
            sentences.append(line[start : end.end()].strip())
            start = end.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]
