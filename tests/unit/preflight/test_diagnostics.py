"""Corpora with one fault each, made from a clean one, and clean ones that must raise no alarm."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seq2seq.data.corpus import CorpusConfig, DataConfig, Example, read_examples
from seq2seq.data.report import SideReport, SplitReport
from seq2seq.preflight.corpus_quality import Corpus, measure, survey
from seq2seq.preflight.diagnostics import Diagnostic, Severity, quality_diagnostics, scripts_of, split_diagnostics

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = DataConfig(source_language="en", target_language="de")
CYRILLIC = str.maketrans("abcdefghijklmnoprstuvwyz", "абцдефгхийклмнопрстувwыз".replace("w", "щ"))

Pairs = list[tuple[str, str]]


def read(folder: Path, corpus: CorpusConfig) -> Pairs:
    return [(example.source, example.target) for example in read_examples(corpus, folder, "data.train")]


@pytest.fixture(scope="module")
def demo() -> dict[str, Pairs]:
    folder = REPOSITORY / "data" / "demo_translation"
    names = {"train": "train", "valid": "valid", "test.test": "test"}
    return {name: read(folder, CorpusConfig(source=f"{file}.en", target=f"{file}.de")) for name, file in names.items()}


def diagnostics(corpora: dict[str, Pairs], data: DataConfig = DATA) -> list[Diagnostic]:
    surveys: dict[str, Corpus] = {
        name: survey(Example(source, target, (target,)) for source, target in pairs) for name, pairs in corpora.items()
    }
    return list(quality_diagnostics(measure(surveys), data))


def serious(found: list[Diagnostic]) -> list[tuple[str, str]]:
    return [(f.severity.value, f.key) for f in found if f.severity is not Severity.note]


def swap_some(pairs: Pairs, share: float) -> Pairs:
    generator = random.Random(1)
    return [(b, a) if generator.random() < share else (a, b) for a, b in pairs]


def shift(pairs: Pairs, start: int) -> Pairs:
    return pairs[:start] + [(a, b) for (a, _), (_, b) in zip(pairs[start:], pairs[start + 1 :], strict=False)]


def cyrillic(text: str) -> str:
    return text.lower().translate(CYRILLIC)


def test_a_clean_corpus_raises_no_alarm(demo: dict[str, Pairs]) -> None:
    assert diagnostics(demo) == []
    assert diagnostics(demo, DataConfig()) == []


def test_a_clean_corpus_of_summaries_raises_no_alarm() -> None:
    folder = REPOSITORY / "data" / "demo_summarization"
    corpora = {
        name: read(folder, CorpusConfig(path=file, source_field="document", target_field="summary"))
        for name, file in (("train", "train.jsonl.gz"), ("valid", "valid.jsonl"), ("test.test", "test.jsonl"))
    }
    assert serious(diagnostics(corpora, DataConfig(source_language="en", target_language="en"))) == []
    assert serious(diagnostics(corpora, DataConfig())) == []


def test_public_corpora_raise_no_alarm(real_data: Path) -> None:
    def texts(name: str) -> CorpusConfig:
        return CorpusConfig(source=f"{name}.en.gz", target=f"{name}.de.gz")

    multi30k = {"train": texts("train"), "valid": texts("val"), "test.flickr": texts("test_2016_flickr")}
    assert serious(diagnostics({name: read(real_data / "multi30k", c) for name, c in multi30k.items()})) == []
    mails = {
        name: read(real_data / "aeslc", CorpusConfig(path=file, source_field="body", target_field="subject"))
        for name, file in (("train", "train.jsonl.gz"), ("valid", "dev.jsonl.gz"))
    }
    assert serious(diagnostics(mails, DataConfig(source_language="en", target_language="en"))) == []
    assert serious(diagnostics(mails, DataConfig())) == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda pairs: swap_some(pairs, 0.3), [("warning", "data.train")]),
        (lambda pairs: swap_some(pairs, 0.03), [("warning", "data.train")]),
        (lambda pairs: shift(pairs, 0), [("error", "data.train")]),
        (lambda pairs: shift(pairs, 2500), [("error", "data.train")]),
        (lambda pairs: shift(pairs, 4200), []),  # fewer than a block of 500: too few to tell
        (lambda pairs: pairs + pairs, [("warning", "data.train")]),
        (lambda pairs: [(a, a) for a, _ in pairs], [("error", "data.train")]),
        (lambda pairs: [(a, a if i % 10 else b) for i, (a, b) in enumerate(pairs)], [("error", "data.train")]),
        (lambda pairs: [(a, "") for a, _ in pairs], [("error", "data.train")]),
        (lambda pairs: random.Random(1).sample(pairs, len(pairs)), []),
    ],
    ids=["swapped 30%", "swapped 3%", "shifted", "shifted later", "shifted late", "doubled", "copied", "mostly copied",
         "emptied", "shuffled"],
)  # fmt: skip
def test_a_fault_of_the_training_set_is_found(
    demo: dict[str, Pairs], fault: Callable[[Pairs], Pairs], expected: list[tuple[str, str]]
) -> None:
    assert serious(diagnostics({"train": fault(demo["train"])})) == expected


def test_the_swapped_share_is_about_right_and_its_first_lines_are(demo: dict[str, Pairs]) -> None:
    swapped = swap_some(demo["train"], 0.3)
    lines = [i + 1 for i, (pair, was) in enumerate(zip(swapped, demo["train"], strict=True)) if pair != was]
    (found,) = diagnostics({"train": swapped})
    count, first = found.message.split(" of ")[0], found.message.partition("the first are ")[2]
    assert 0.7 * len(lines) < int(count.replace(",", "")) <= len(lines)
    assert set(map(int, first.split(", "))) <= set(lines)


def test_a_validation_set_with_exchanged_files_is_an_error(demo: dict[str, Pairs]) -> None:
    turned = {**demo, "valid": [(b, a) for a, b in demo["valid"]]}
    (found,) = diagnostics(turned)
    assert (found.severity, found.fix) == (Severity.error, "exchange data.valid.source and data.valid.target")
    assert serious(diagnostics(turned, DataConfig())) == [("error", "data.valid")]


def test_leakage_of_five_lines_is_found(demo: dict[str, Pairs]) -> None:
    leaky = {**demo, "test.test": demo["test.test"][:100] + demo["train"][40:45] + demo["test.test"][100:]}
    (found,) = diagnostics(leaky)
    assert (found.severity, found.key) == (Severity.warning, "data.test.test")
    assert "5 of 305 pairs (1.6%)" in found.message
    assert "101, 102, 103, 104, 105" in found.message


def test_latin_letters_on_a_russian_side_are_found(demo: dict[str, Pairs]) -> None:
    russian = replace(DATA, target_language="ru")
    assert ("error", "data.train.target") in serious(diagnostics({"train": demo["train"]}, russian))
    written = [(a, cyrillic(b)) for a, b in demo["train"]]
    assert serious(diagnostics({"train": written}, russian)) == []
    some = [(a, cyrillic(b) if i % 10 else b) for i, (a, b) in enumerate(demo["train"])]
    for data in (russian, DataConfig()):
        (found,) = [f for f in diagnostics({"train": some}, data) if f.key == "data.train.target"][:1]
        assert found.severity is Severity.warning
        assert "10.0% LATIN" in found.message


def test_untranslated_targets_are_found(demo: dict[str, Pairs]) -> None:
    pairs = demo["train"]
    others = [(a, pairs[i - 1][0] if i % 20 == 0 else b) for i, (a, b) in enumerate(pairs)]
    assert serious(diagnostics({"train": others})) == [("warning", "data.train.target")]


def test_filters_that_are_on_silence_what_they_remove(demo: dict[str, Pairs]) -> None:
    pairs = demo["train"] + demo["train"]
    assert serious(diagnostics({"train": pairs}, replace(DATA, drop_duplicates=True))) == []


def test_languages_know_their_scripts() -> None:
    assert scripts_of("ru") == {"CYRILLIC"}
    assert scripts_of("ja") == {"CJK", "HIRAGANA", "KATAKANA"}
    assert scripts_of("zh_CN") == {"CJK"}
    assert scripts_of("de") == {"LATIN"}
    assert scripts_of("xx") == scripts_of(None) == set()


def test_what_is_left_of_a_split_and_its_vocabulary() -> None:
    side = SideReport(limit=10, tokens=1000, lengths={"median": 5})
    splits = {
        "train": SplitReport(100, 0, {"too long": 100}, side, side),
        "valid": SplitReport(100, 30, {"too long": 70}, side, side),
        "test.a": SplitReport(100, 100, {}, replace(side, unknown=50), replace(side, byte_pieces=200)),
        "test.b": SplitReport(100, 100, {}, replace(side, unknown=5), replace(side, byte_pieces=20)),
    }
    assert serious(list(split_diagnostics(splits))) == [
        ("error", "data.train"),
        ("warning", "data.valid"),
        ("warning", "data.test.a.source"),
        ("warning", "data.test.a.target"),
    ]
