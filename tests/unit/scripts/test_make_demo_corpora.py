import gzip
import json
import random
import re
from itertools import islice, product
from pathlib import Path
from typing import Any

import make_demo_corpora
import pytest
from demo import summarization, translation
from demo.affairs import AFFAIRS
from demo.events import EVENTS
from demo.names import FactSource
from demo.topic import sentences

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "data"
TRANSLATION = DATA / "demo_translation"
SUMMARIZATION = DATA / "demo_summarization"
SPLITS = ("train", "valid", "test")


def lines(name: str) -> list[str]:
    text = (TRANSLATION / name).read_bytes().decode()
    assert text.endswith("\n")
    return text.split("\n")[:-1]


def records(split: str) -> list[dict[str, Any]]:
    name = "train.jsonl.gz" if split == "train" else f"{split}.jsonl"
    content = (SUMMARIZATION / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def words(text: str) -> set[str]:
    return set(text.strip(".?").replace(",", " ").replace(".", " ").split())


# The committed files


def test_the_demo_data_stay_small():
    total = sum(p.stat().st_size for folder in (TRANSLATION, SUMMARIZATION) for p in folder.iterdir())
    assert total < 2_000_000


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
        known = set().union(*map(words, lines(f"train.{language}"))) | translation.OPEN_CLASS
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
    assert {split: len(found) for split, found in by_split.items()} == {"train": 7000, "valid": 400, "test": 400}
    for split, found in by_split.items():
        extra = set() if split == "train" else {"facts"}
        assert all(set(record) == {"id", "document", "summary"} | extra for record in found)
    everything = [record for found in by_split.values() for record in found]
    for field in ("id", "document", "summary"):
        assert len({record[field] for record in everything}) == 7800


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_facts_are_the_names_and_numbers_of_the_summary(split):
    for record in records(split):
        assert "{" not in record["document"] + record["summary"]
        assert 3 <= len(record["facts"]) == len(set(record["facts"]))
        rest = record["summary"]
        for fact in record["facts"]:
            assert fact in record["document"], (fact, record)
            assert rest.count(fact) >= 1, (fact, record)
            rest = rest.replace(fact, "", 1)
        # what is left has no digits, and capitals at the start of a sentence only
        assert not re.search(r"\d", rest), record
        assert not re.search(r"(?<!^)(?<!\. )[A-Z]", rest), record


def test_the_names_and_codes_of_the_test_set_are_new():
    word = re.compile(r"[\w'-]+")
    trained = {found for record in records("train") for found in word.findall(record["document"])}
    facts = [fact for record in records("test") for fact in record["facts"]]
    codes = [fact for fact in facts if re.fullmatch(r"[A-Z]{2}-\d{4}", fact)]
    names = [max(word.findall(fact), key=len) for fact in facts if not re.search(r"\d", fact)]
    # of "Brool & Sons" or "New Ulb" the longest word may be an ordinary one
    names = [name for name in names if name not in {"Holdings", "Brothers", "Partners", "Athletic", "Wanderers"}]
    assert len(codes) > 50
    assert len(names) > 400
    assert sum(code in trained for code in codes) < 0.05 * len(codes)
    assert sum(name in trained for name in names) < 0.05 * len(names)


def test_documents_hold_names_and_numbers_that_do_not_belong_in_the_summary():
    for record in records("test"):
        rest = record["document"]
        for fact in record["facts"]:
            rest = rest.replace(fact, "")
        assert re.search(r"\d", rest), record
        assert len(re.findall(r"(?<![.\n] )\b[A-Z]\w+", rest)) > 1, record
    assert 0.25 < sum("\n" in record["document"] for record in records("test")) / 400 < 0.6


# The generators


def test_the_stream_is_decided_by_the_seed():
    assert list(islice(translation.pairs(3), 200)) == list(islice(translation.pairs(3), 200))
    assert list(islice(translation.pairs(3), 200)) != list(islice(translation.pairs(4), 200))
    first, again = (list(islice(summarization.reports(3), 50)) for _ in range(2))
    assert first == again


def test_an_english_sentence_has_one_translation():
    translations: dict[str, str] = {}
    for seed in (1, 2):
        for english, german in islice(translation.pairs(seed), 10_000):
            assert translations.setdefault(english, german) == german


def test_reports_have_five_to_eight_sentences_behind_their_heading():
    for report in islice(summarization.reports(5), 500):
        # dots inside a sentence are followed by no capital or digit
        sentences = len(re.findall(r"[.](?=[ \n][A-Z0-9\"É-Ý]|$)", report.document))
        assert 5 <= sentences <= 9, report.document  # "Ref." of a heading counts
        assert report.summary.endswith(".")
        assert len(re.findall(r"\.(?= |$)", report.summary)) <= 2


def test_each_wording_can_be_filled_and_each_summary_from_what_the_keys_say():
    for topic in (*AFFAIRS, *EVENTS):
        hole = re.compile(r"\{(\w+)\}")
        for outcome in topic.outcomes:
            for keys in product(*sentences(topic.keys)):
                told = set(hole.findall(" ".join(keys)))
                told |= {name for word in outcome.words.values() for name in hole.findall(word)}
                assert set(hole.findall(outcome.summary)) <= told | set(topic.choices)
        rng = random.Random(1)
        for text in (line for part in (topic.keys, topic.sides) for line in part.split("\n")):
            for name in set(hole.findall(text)) - set(topic.choices) - set(topic.outcomes[0].words):
                assert FactSource(rng).draw(name.rstrip("0123456789"))


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
