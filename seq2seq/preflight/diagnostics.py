"""What a user should know before training, told from figures: each diagnostic with its weight and its fix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from seq2seq.data.corpus import DataConfig
from seq2seq.data.report import SideReport, SplitReport
from seq2seq.metrics.languages import primary_language
from seq2seq.preflight.corpus_quality import Quality, Some

# Shares from which on a diagnostic is worth a line; those of languages allow for names, quotations and numbers.
_FEW, _SOME, _MANY, _MOST = 0.01, 0.05, 0.1, 0.5
_LEAST = 100  # pairs below which shares of texts say little

# The scripts that languages are written in (Unicode CLDR, likelySubtags), by the first words of their letters' names.
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
    """How bad a diagnostic is: an error keeps training from starting or from making sense."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Diagnostic:
    """One thing that a user should know.

    Attributes:
        severity: how bad it is.
        key: the config key or section that it concerns.
        message: what was found, with figures.
        fix: what to change; empty where there is nothing to.
    """

    severity: Severity
    key: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """The diagnostic in one line."""
        what = self.message if self.message.startswith(self.key) else f"{self.key}: {self.message}"
        return f"{what} -> {self.fix}" if self.fix else what


def scripts_of(language: str | None) -> set[str]:
    """The scripts that a language is written in; empty where that is not known, or the language is not."""
    code = primary_language(language)
    return {script for script, codes in _LANGUAGES.items() if code in codes.split()}


def of_quality(qualities: Mapping[str, Quality], data: DataConfig) -> Iterator[Diagnostic]:
    """Findings about the texts of all corpora.

    Args:
        qualities: by the corpus' name: ``train``, ``valid``, ``test.<name>``.
        data: languages, and which filters are on.
    """
    for name, quality in qualities.items():
        key = f"data.{name}"
        if not quality.filled:
            yield Diagnostic(
                Severity.error, key, f"not one of {quality.pairs:,} pairs has text on both sides", f"give {key} text"
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


def _first(some: Some | list[int]) -> str:
    """The numbers of the first ones; those of text files are their lines."""
    numbers = some.first if isinstance(some, Some) else some
    return f"the first are {', '.join(map(str, numbers))}" if len(numbers) > 1 else f"number {numbers[0]}"


def _alignment(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    shift = quality.shift
    if shift is not None:
        way = "later" if shift.offset > 0 else "earlier"
        lines = f"{abs(shift.offset)} line" + ("s" if abs(shift.offset) > 1 else "")
        yield Diagnostic(
            Severity.error if shift.pairs >= _MANY * quality.pairs else Severity.warning,
            key,
            f"the sides look shifted from about line {shift.first:,} to {shift.last:,}: going by their lengths, "
            f"targets come {lines} {way} than their sources there",
            f"find the line that is lost or added in front of line {shift.first:,} on one side",
        )
    elif _translates(data) and quality.correlation is not None and quality.correlation < 0.3:  # Multi30k's is 0.88
        yield Diagnostic(
            Severity.warning,
            key,
            f"the lengths of sources and targets are hardly correlated ({quality.correlation:.2f}; those of "
            "translations are, by 0.7 and more)",
            f"see whether line n of {key}.target really translates line n of {key}.source",
        )
    if quality.outliers.count:
        yield Diagnostic(
            Severity.warning if quality.outliers.count >= _FEW * quality.filled else Severity.note,
            key,
            f"{_share(quality.outliers.count, quality.filled)} have lengths out of all proportion; "
            f"{_first(quality.outliers)}",
            "look at them; data.max_length_ratio drops such pairs" if key == "data.train" else "look at them",
        )


def _translates(data: DataConfig) -> bool:
    """Whether the languages of both sides are known to differ."""
    source, target = primary_language(data.source_language), primary_language(data.target_language)
    return source is not None and target is not None and source != target


def _sides(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    """Pairs the wrong way round, and texts that look like the other side, by the words of the training set."""
    found, sampled = quality.side_counts, quality.sampled
    one_language = data.source_language is not None and data.source_language == data.target_language
    if one_language:
        return
    if found.swapped >= _MOST * sampled and key != "data.train":
        yield Diagnostic(
            Severity.error,
            key,
            f"its sides look swapped: {_share(found.swapped, sampled)} are the other way round than in data.train",
            f"exchange {key}.source and {key}.target",
        )
    elif found.swapped >= max(_FEW * sampled, 3):
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(found.swapped, sampled)} look swapped, source for target; {_first(quality.swapped)}",
            "turn them round, or remove them",
        )
    if not _translates(data) or max(found.swapped / sampled, quality.identical.count / quality.filled) >= _MOST:
        return  # there is nothing to add to that
    for side, other, count in (("source", "target", found.source_strayed), ("target", "source", found.target_strayed)):
        if count >= max(2 * _FEW * sampled, 3):
            yield Diagnostic(
                Severity.warning,
                f"{key}.{side}",
                f"{_share(count, sampled, f'{side}s')} look like {other}s: not translated, or of the wrong language",
                "remove these pairs",
            )
    same_script = next(iter(quality.scripts["source"]), None) == next(iter(quality.scripts["target"]), None) == "LATIN"
    if same_script and sampled >= _LEAST and found.in_place < _MOST * sampled:
        yield Diagnostic(
            Severity.warning,
            key,
            f"by their words, sources and targets can be told apart in only {_share(found.in_place, sampled)}",
            f"see whether both sides of {key} are in their own language",
        )


def _scripts(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    main = {side: next(iter(shares), None) for side, shares in quality.scripts.items()}
    for side, other in (("source", "target"), ("target", "source")):
        shares, language = quality.scripts[side], getattr(data, f"{side}_language")
        expected = scripts_of(language)
        off = {script: share for script, share in shares.items() if script not in expected}
        why = f"data.{side}_language={language} is written in {'/'.join(sorted(expected))}"
        if not expected:  # then what the other side is written in is suspicious
            off = {script: share for script, share in shares.items() if script == main[other] != main[side]}
            why = f"most are {main[side]}, and the {other}s are {main[other]}"
        if sum(off.values()) >= _SOME:
            listed = ", ".join(f"{share:.1%} {script}" for script, share in off.items())
            yield Diagnostic(
                Severity.error if sum(off.values()) >= _MOST else Severity.warning,
                f"{key}.{side}",
                f"{listed} of {quality.sampled:,} {side}s by their letters, but {why}",
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
        f"source and target are the same in {_share(same.count, quality.filled)}; {_first(same)}",
        "data.drop_identical=true drops them" if key == "data.train" and share < _MOST else f"give {key} its targets",
    )


def _repetition(key: str, quality: Quality, data: DataConfig) -> Iterator[Diagnostic]:
    """Texts that come again; one in a hundred is usual even in clean corpora."""
    pairs, filled = quality.repeated, quality.filled
    if pairs >= _FEW * filled and not data.drop_duplicates:
        yield Diagnostic(
            Severity.warning if pairs >= _MANY * filled else Severity.note,
            key,
            f"{_share(pairs, filled)} came before",
            "data.drop_duplicates=true keeps the first of each",
        )
    for side, repeated in (("source", quality.repeated_sources), ("target", quality.repeated_targets)):
        others = repeated - pairs
        if others >= _MANY * filled:
            meaning = "no model can tell which is meant" if side == "source" else "models come to prefer such targets"
            other = "target" if side == "source" else "source"
            message = f"{_share(others, filled)} repeat a {side} with another {other}: {meaning}"
            yield Diagnostic(Severity.note, f"{key}.{side}", message)


def _leakage(key: str, quality: Quality) -> Iterator[Diagnostic]:
    """Validation and test texts that are trained on."""
    pairs, sources = quality.leaked, quality.leaked_sources
    fix = "remove them from data.train"
    if pairs.count:
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(pairs.count, quality.filled)} are in data.train too, which flatters the scores; {_first(pairs)}",
            fix,
        )
    others = sources.count - pairs.count
    if others > 0:
        message = f"{_share(sources.count, quality.filled, 'sources')} are in data.train too"
        if pairs.count:
            message += ", those of such pairs counted"
        yield Diagnostic(
            Severity.warning if others >= _FEW * quality.filled else Severity.note,
            key,
            f"{message}; {_first(sources)}",
            fix,
        )


def of_splits(splits: Mapping[str, SplitReport]) -> Iterator[Diagnostic]:
    """Findings about what is kept of each split, and how it suits the tokenizer."""
    for name, split in splits.items():
        key = f"data.{name}"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in split.dropped.items() if count)
        if not split.kept:
            yield Diagnostic(
                Severity.error, key, f"none of {split.read:,} pairs is left: {reasons}", "fix the data or its filters"
            )
            continue
        if split.kept < _MOST * split.read:
            message = f"only {_share(split.kept, split.read)} are left: {reasons}"
            yield Diagnostic(Severity.warning, key, message, "see whether the filters of data.* are meant so")
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
            "raise tokenizer.vocab_size, or take subwords (tokenizer=unigram) with tokenizer.byte_fallback=true",
        )
    if side.byte_pieces >= _MANY * max(side.tokens, 1):
        yield Diagnostic(
            Severity.warning,
            key,
            f"{_share(side.byte_pieces, side.tokens, 'tokens')} are single bytes: characters that training text lacks",
            "see whether the text is in the language of data.train",
        )
    if side.blank and split.kept == split.read:
        yield Diagnostic(Severity.note, key, f"{_share(side.blank, split.read, 'texts')} are empty")
