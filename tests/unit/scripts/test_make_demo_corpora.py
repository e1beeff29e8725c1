import gzip
import json
import re
import sys
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import demo_summarization  # noqa: E402
import demo_translation  # noqa: E402
import make_demo_corpora  # noqa: E402

DATA = ROOT / "data"
TRANSLATION = DATA / "demo_translation"
SUMMARIZATION = DATA / "demo_summarization"
SPLITS = ("train", "valid", "test")


def lines(name: str) -> list[str]:
    text = (TRANSLATION / name).read_bytes().decode()
    assert text.endswith("\n")
    return text.split("\n")[:-1]


def records(split: str) -> list[dict[str, str]]:
    name = "train.jsonl.gz" if split == "train" else f"{split}.jsonl"
    content = (SUMMARIZATION / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def words(text: str) -> set[str]:
    return set(text.strip(".?").replace(",", " ").replace(".", " ").split())


# The committed files


def test_all_demo_data_stays_below_one_megabyte():
    total = sum(p.stat().st_size for folder in (TRANSLATION, SUMMARIZATION) for p in folder.iterdir())
    assert total < 1_000_000


@pytest.mark.parametrize(("split", "count"), [("train", 4500), ("valid", 300), ("test", 300)])
def test_the_sides_of_the_translation_corpus_are_aligned(split, count):
    english, german = lines(f"{split}.en"), lines(f"{split}.de")
    assert len(english) == len(german) == count
    for source, target in zip(english, german, strict=True):
        assert source[-1] == target[-1]
        assert source[-1] in ".?"
        assert 3 <= len(source.split()) <= 16
        assert not re.search(r"\s\s| ,|,[.?]|,,", source + target)
        # names and digits are the same on both sides (cities and the dot of ordinals aside)
        assert sorted(re.findall(r"\d+", source)) == sorted(re.findall(r"\d+", target))


def test_no_held_out_sentence_is_trained_on_on_either_side():
    for language in ("en", "de"):
        train, valid, test = (set(lines(f"{split}.{language}")) for split in SPLITS)
        assert not train & valid
        assert not train & test
        assert not valid & test
        assert len(train) == 4500


def test_held_out_words_are_trained_on_apart_from_names_and_numbers():
    for language in ("en", "de"):
        known = set().union(*map(words, lines(f"train.{language}"))) | demo_translation.OPEN_CLASS
        for split in ("valid", "test"):
            unknown = set().union(*map(words, lines(f"{split}.{language}"))) - known
            assert all(any(c.isdigit() for c in word) for word in unknown)


def test_the_committed_files_are_what_the_seed_writes(tmp_path):
    make_demo_corpora.main(["--output", str(tmp_path)])
    for path in [*TRANSLATION.iterdir(), *SUMMARIZATION.iterdir()]:
        fresh = (tmp_path / path.relative_to(DATA)).read_bytes()
        if path.suffix == ".gz":  # the compressed bytes depend on the zlib at hand
            assert gzip.decompress(fresh) == gzip.decompress(path.read_bytes())
        else:
            assert fresh == path.read_bytes()


def test_reports_have_unique_ids_and_other_summaries_in_each_split():
    by_split = {split: records(split) for split in SPLITS}
    assert {split: len(found) for split, found in by_split.items()} == {
        "train": 3000,
        "valid": 200,
        "test": 200,
    }
    everything = [record for found in by_split.values() for record in found]
    assert all(set(record) == {"id", "document", "summary"} for record in everything)
    for field in ("id", "document", "summary"):
        assert len({record[field] for record in everything}) == 3400


def test_summary_numbers_and_names_are_in_the_document():
    names = re.compile(r"(?<!^)\b[A-Z][a-z]+\b(?: [A-Z][a-z]+)*")
    for record in records("test"):
        assert "{" not in record["document"] + record["summary"]
        for fact in re.findall(r"\d[\d,:-]*", record["summary"]) + names.findall(record["summary"]):
            assert fact in record["document"], (fact, record)


def test_most_test_persons_are_new_and_documents_hold_distracting_numbers():
    person = re.compile(r"\b[A-Z][a-z]+ [A-Z][a-z]{5,}\b")
    trained = set().union(*(person.findall(r["document"]) for r in records("train")))
    tested = set().union(*(person.findall(r["summary"]) for r in records("test")))
    assert len(tested - trained) > 0.7 * len(tested)
    distracting = [
        set(re.findall(r"\d+", r["document"])) - set(re.findall(r"\d+", r["summary"])) for r in records("test")
    ]
    assert sum(map(bool, distracting)) > 0.9 * len(distracting)


# The generators


def test_the_stream_is_decided_by_the_seed():
    assert list(islice(demo_translation.pairs(3), 200)) == list(islice(demo_translation.pairs(3), 200))
    assert list(islice(demo_translation.pairs(3), 200)) != list(islice(demo_translation.pairs(4), 200))
    first, again = (list(islice(demo_summarization.reports(3), 50)) for _ in range(2))
    assert first == again


def test_an_english_sentence_has_one_translation():
    translations: dict[str, str] = {}
    for seed in (1, 2):
        for english, german in islice(demo_translation.pairs(seed), 10_000):
            assert translations.setdefault(english, german) == german


def test_reports_have_four_to_seven_sentences():
    for document, summary in islice(demo_summarization.reports(5), 500):
        # dots inside a sentence are followed by no capital: 3.5, 12. May does not occur in English
        assert 4 <= len(re.findall(r"\.(?= [A-Z0-9]|$)", document)) <= 7, document
        assert summary.endswith(".")
        assert summary.count(".") == 1


def test_a_larger_corpus_has_disjoint_splits_and_the_asked_size(tmp_path):
    make_demo_corpora.main(
        [
            "--task",
            "translation",
            "--pairs",
            "6000",
            "--held-out",
            "500",
            "--output",
            str(tmp_path),
            "--seed",
            "9",
        ]
    )
    folder = tmp_path / "demo_translation"
    sets = {}
    for split, count in (("train", 6000), ("valid", 500), ("test", 500)):
        sides = [(folder / f"{split}.{x}").read_text(encoding="utf-8").split("\n")[:-1] for x in ("en", "de")]
        assert [len(side) for side in sides] == [count, count]
        sets[split] = [set(side) for side in sides]
    for side in (0, 1):
        assert not sets["train"][side] & sets["test"][side]
        assert not sets["train"][side] & sets["valid"][side]
    assert not list(tmp_path.rglob("*.part"))


def test_repeats_are_forgotten_at_the_limit():
    seen = make_demo_corpora.RecentlySeen(2)
    assert [seen.add(text) for text in ("a", "a", "b", "c", "a")] == [True, False, True, True, True]


@pytest.mark.parametrize("arguments", [["--pairs", "0"], ["--held-out", "-1"], ["--task", "speech"]])
def test_odd_arguments_are_refused(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_demo_corpora.main([*arguments, "--output", str(tmp_path)])
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())
