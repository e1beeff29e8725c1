"""Diagnostics of the data before training, each with its severity and its fix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from seq2seq.data.corpus import DataConfig
from seq2seq.data.report import SideReport, SplitReport
from seq2seq.metrics.languages import primary_language
from seq2seq.preflight.corpus_quality import Quality

# Shares at which a diagnostic is reported; those of languages allow for names, quotations and numbers.
_FEW, _SOME, _MANY, _MOST = 0.01, 0.05, 0.1, 0.5
_MIN_PAIRS = 100  # with fewer, shares of texts say little

# The languages written in each script (Unicode CLDR, likelySubtags); a script is the first word of its letters' names.
_LANGUAGES = {
    "ARABIC": "ar ckb fa ps sd ug ur", "ARMENIAN": "hy", "BENGALI": "as bn",
    "CYRILLIC": "ba be bg cv kk ky mk mn ru tg tt uk", "DEVANAGARI": "hi mr ne sa",
    "ETHIOPIC": "am ti", "GEORGIAN": "ka", "GREEK": "el", "GUJARATI": "gu",
    "GURMUKHI": "pa", "HEBREW": "he yi", "KANNADA": "kn", "KHMER": "km", "LAO": "lo", "MALAYALAM": "ml",
    "MYANMAR": "my", "ORIYA": "or", "SINHALA": "si", "TAMIL": "ta", "TELUGU": "te", "THAI": "th", "TIBETAN": "bo",
    "CJK": "zh ja ko", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko",
    "LATIN": "af ast bs ca ceb cs cy da de en eo es et eu fi fo fr fy ga gd gl ha hr ht hu id ig is it jv la lb lt lv "
    "mg ms mt nb nl nn no oc pl pt ro rw sk sl sn so sq st su sv sw tl tn tr vi wo xh yo zu",
}  # fmt: skip


class Severity(str, Enum):
    """How bad a diagnostic is: with an error, training cannot start or makes no sense."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Diagnostic:
    """One thing that a user should know.

    Attributes:
        severity: how bad it is.
        key: the config key or section that it concerns.
        message: what was found, with numbers.
        fix: what to change; empty if there is nothing to.
    """

    severity: Severity
    key: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Formats the diagnostic as one line."""
        what = self.message if self.message.startswith(self.key) else f"{self.key}: {self.message}"
        return f"{what} -> {self.fix}" if self.fix else what


def scripts_of(language: str | None) -> set[str]:
    """Returns the scripts that a language is written in; empty if the language is None or unknown."""
    code = primary_language(language)
    return {script for script, codes in _LANGUAGES.items() if code in codes.split()}


def quality_diagnostics(qualities: Mapping[str, Quality], data: DataConfig) -> Iterator[Diagnostic]:
    """Yields the diagnostics of the texts of all corpora.

    Args:
        qualities: by corpus name: ``train``, ``valid``, ``test.<name>``.
        data: the data section, for its languages and filters.
    """
    for name, quality in qualities.items():
        key = f"data.{name}"
        if not quality.filled:
            yield Diagnostic(
                Severity.error, key, f"none of {quality.pairs:,} pairs has text on both sides", f"give {key} text"
            )
            continue
        yield from _alignment(key, quality, data)
        yield from _sides(key, quality, data)
        yield from _scripts(key, quality, data)
        yield from _copies(key, quality, data)
        if name == "train":
            yield from _repetition(key, quality, data)
        else:
            yield from _leakage(key, quality)


def _share(count: int, whole: int, what: str = "pairs") -> str:
    return f"{count:,} of {whole:,} {what} ({count / max(whole, 1):.1%})"


def _first_numbers(numbers: list[int]) -> str:
    """Lists the numbers of the first pairs; in text files they are line numbers."""
    return f"the first are {', '.join(map(str, numbers))}" if len(numbers) > 1 else f"number {numbers[0]}"


def _alignment(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    shift = quality.shift
    if shift is not None:
        direction = "later" if shift.offset > 0 else "earlier"
        lines = f"{abs(shift.offset)} line" + ("s" if abs(shift.offset) > 1 else "")
        yield Diagnostic(
            Severity.error if shift.pairs >= _MANY * quality.pairs else Severity.warning,
            key,
            f"the sides look shifted from about line {shift.first:,} to {shift.last:,}: judging by their lengths, "
            f"targets come {lines} {direction} than their sources",
            f"find the line that was lost or added before line {shift.first:,} on one side",
        )
    elif _translates(data) and quality.correlation is not None and quality.correlation < 0.3:  # Multi30k's is 0.88
        yield Diagnostic(
            Severity.warning,
            key,
            f"the lengths of sources and targets are hardly correlated ({quality.correlation:.2f}; translations "
            "have 0.7 or more)",
            f"check whether line n of {key}.target really translates line n of {key}.source",
        )
    if quality.outliers.count:
        yield Diagnostic(
            Severity.warning if quality.outliers.count >= _FEW * quality.filled else Severity.note,
            key,
            f"{_share(quality.outliers.count, quality.filled)} have an unusual length ratio; "
            f"{_first_numbers(quality.outliers.first)}",
            "inspect them; data.max_length_ratio drops such pairs" if key == "data.train" else "inspect them",
        )


def _translates(data: DataConfig) -> bool:
    """Returns whether the languages of both sides are known to differ."""
    source, target = primary_language(data.source_language), primary_language(data.target_language)
    return source is not None and target is not None and source != target


def _sides(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    """Finds swapped pairs and texts in the wrong language, by the words of the training set."""
    counts, sampled = quality.side_counts, quality.sampled
    if data.source_language is not None and data.source_language == data.target_language:
        return
    if counts.swapped >= _MOST * sampled and key != "data.train":
        yield Diagnostic(
            Severity.error,
            key,
            f"its sides look swapped: {_share(counts.swapped, sampled)} are the other way round than in data.train",
            f"exchange {key}.source and {key}.target",
        )
    elif counts.swapped >= max(_FEW * sampled, 3):
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(counts.swapped, sampled)} look swapped, source for target; {_first_numbers(quality.swapped)}",
            "swap them back, or remove them",
        )
    if not _translates(data) or max(counts.swapped / sampled, quality.identical.count / quality.filled) >= _MOST:
        return  # the rest would only repeat it
    for side, other, count in (("source", "target", counts.both_target), ("target", "source", counts.both_source)):
        if count >= max(2 * _FEW * sampled, 3):
            yield Diagnostic(
                Severity.warning,
                f"{key}.{side}",
                f"{_share(count, sampled, f'{side}s')} look like {other}s: not translated, or in the wrong language",
                "remove these pairs",
            )
    same_script = next(iter(quality.scripts["source"]), None) == next(iter(quality.scripts["target"]), None) == "LATIN"
    if same_script and sampled >= _MIN_PAIRS and counts.correct < _MOST * sampled:
        yield Diagnostic(
            Severity.warning,
            key,
            f"by their words, sources and targets can be told apart in only {_share(counts.correct, sampled)}",
            f"check that each side of {key} is in its own language",
        )


def _scripts(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    main = {side: next(iter(shares), None) for side, shares in quality.scripts.items()}
    for side, other in (("source", "target"), ("target", "source")):
        shares, language = quality.scripts[side], getattr(data, f"{side}_language")
        expected = scripts_of(language)
        off = {script: share for script, share in shares.items() if script not in expected}
        why = f"data.{side}_language={language} is written in {'/'.join(sorted(expected))}"
        if not expected:  # no language is known: then the script of the other side is suspicious
            off = {script: share for script, share in shares.items() if script == main[other] != main[side]}
            why = f"most are {main[side]}, and the {other}s are {main[other]}"
        if sum(off.values()) >= _SOME:
            listed = ", ".join(f"{share:.1%} {script}" for script, share in off.items())
            yield Diagnostic(
                Severity.error if sum(off.values()) >= _MOST else Severity.warning,
                f"{key}.{side}",
                f"{listed} among {quality.sampled:,} {side}s, by their letters, but {why}",
                f"give the right file, correct data.{side}_language, or remove these pairs",
            )


def _copies(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    same = quality.identical
    if not same.count or (key == "data.train" and data.drop_identical):
        return
    share = same.count / quality.filled
    yield Diagnostic(
        Severity.error if share >= _MOST else Severity.warning if share >= _SOME else Severity.note,
        key,
        f"source and target are the same in {_share(same.count, quality.filled)}; {_first_numbers(same.first)}",
        "data.drop_identical=true drops them" if key == "data.train" and share < _MOST else f"give {key} its targets",
    )


def _repetition(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    """Finds duplicates; one in a hundred is usual even in clean corpora."""
    pairs, filled = quality.repeated, quality.filled
    if pairs >= _FEW * filled and not data.drop_duplicates:
        yield Diagnostic(
            Severity.warning if pairs >= _MANY * filled else Severity.note,
            key,
            f"{_share(pairs, filled)} are duplicates",
            "data.drop_duplicates=true keeps the first of each",
        )
    for side, repeated, effect in (
        ("source", quality.repeated_sources, "target: no model can tell which is meant"),
        ("target", quality.repeated_targets, "source: models learn to prefer such targets"),
    ):
        others = repeated - pairs
        if others >= _MANY * filled:
            yield Diagnostic(
                Severity.note, f"{key}.{side}", f"{_share(others, filled)} repeat a {side} with another {effect}"
            )


def _leakage(key: str, quality: Quality) -> Iterator[Diagnostic]:
    """Finds validation and test texts that are also in the training set."""
    pairs, sources = quality.leaked, quality.leaked_sources
    fix = "remove them from data.train"
    if pairs.count:
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(pairs.count, quality.filled)} are in data.train too, which inflates the scores; "
            f"{_first_numbers(pairs.first)}",
            fix,
        )
    others = sources.count - pairs.count
    if others > 0:
        message = f"{_share(sources.count, quality.filled, 'sources')} are in data.train too"
        if pairs.count:
            message += ", including those of these pairs"
        yield Diagnostic(
            Severity.warning if others >= _FEW * quality.filled else Severity.note,
            key,
            f"{message}; {_first_numbers(sources.first)}",
            fix,
        )


def split_diagnostics(splits: Mapping[str, SplitReport]) -> Iterator[Diagnostic]:
    """Yields the diagnostics of what each split keeps after filtering, and of how the tokenizer fits it."""
    for name, split in splits.items():
        key = f"data.{name}"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in split.dropped.items() if count)
        if not split.kept:
            yield Diagnostic(
                Severity.error, key, f"none of {split.read:,} pairs is left: {reasons}", "fix the data or its filters"
            )
            continue
        if split.kept < _MOST * split.read:
            yield Diagnostic(
                Severity.warning,
                key,
                f"only {_share(split.kept, split.read)} are left: {reasons}",
                "check the filters in the data section",
            )
        if name == "train":
            yield from (Diagnostic(Severity.warning, key, line.removeprefix("warning: ")) for line in split.warnings())
        for side in ("source", "target"):
            yield from _vocabulary(f"{key}.{side}", getattr(split, side), split)


def _vocabulary(key: str, side: SideReport, split: SplitReport) -> Iterator[Diagnostic]:
    if side.unknown >= _FEW * max(side.tokens, 1):
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(side.unknown, side.tokens, 'tokens')} are not in the vocabulary",
            "raise tokenizer.vocab_size, or use subwords (tokenizer=unigram) with tokenizer.byte_fallback=true",
        )
    if side.byte_pieces >= _MANY * max(side.tokens, 1):
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(side.byte_pieces, side.tokens, 'tokens')} are single bytes, for characters that are not "
            "in the training text",
            "check that the text is in the language of data.train",
        )
    if side.blank and split.kept == split.read:
        yield Diagnostic(Severity.note, key, f"{_share(side.blank, split.read, 'texts')} are empty")
