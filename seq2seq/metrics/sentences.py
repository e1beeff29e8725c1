"""Sentence splitting for ROUGE-Lsum, the lead baseline and the extractive oracle."""

import re

# A sentence ends at punctuation followed by a space, including the closing quotes and brackets after it. Full-width
# punctuation of Chinese and Japanese needs no space. A full stop after a single letter or digit is treated as part of
# an initial, an abbreviation or a list number: J. Smith, 9 a.m., U.S., 1. Agenda.
_CLOSING = r"[\"'\u2019\u201d\u00bb)\]\u300d\u300f\uff09]*"
_SPACED_END = rf"(?:(?<!\b\w)\.|\.(?=[.!?\u061f])|[!?\u061f])[.!?\u061f]*{_CLOSING}(?=\s)"
_WIDE_END = rf"[\u3002\uff01\uff1f]+{_CLOSING}"
_END = re.compile(f"{_SPACED_END}|{_WIDE_END}")


def split_sentences(text: str) -> list[str]:
    """Splits a text into stripped, non-empty sentences.

    A sentence ends at a line break, or after `.`, `!`, `?` and `؟` before white space, or after `。`, `！` and `？`
    anywhere; it includes closing quotes and brackets. A full stop after a single letter or digit does not end one.
    Being a rule and not a model, it splits "etc. Then" and "Dr. Who".
    """
    sentences = [sentence.strip() for sentence in _END.sub(r"\g<0>\n", text).split("\n")]
    return [sentence for sentence in sentences if sentence]
