import json
import re

import pytest
import score_facts
from score_facts import Record

from seq2seq.config import saved
from seq2seq.config.parse import parse
from seq2seq.errors import UserError

RECORDS = [
    Record(
        "Ada O'Nal of New Ulb found 1,200 coins on 3 May. Bo Urk had found 12.",
        "Ada O'Nal finds 1,200 coins in New Ulb. It was on 3 May.",
        ("Ada O'Nal", "1,200", "New Ulb", "3 May"),
    ),
    Record("Bim & Sons sold 40 lamps to Cai Dro for 7.5 million.", "Bim & Sons sells 40 lamps.", ("Bim & Sons", "40")),
]


def cells(outputs: list[str], records: list[Record] = RECORDS) -> dict[str, list[str]]:
    """The table's rows without the intervals, by kind."""
    rows = score_facts.table(outputs, records, seed=1).split("\n\n")[0].split("\n")[2:]
    split = [[re.sub(r" \(.*\)", "", cell.strip()) for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in split}


def test_the_references_have_all_facts_right_and_nothing_else():
    table = score_facts.table([record.summary for record in RECORDS], RECORDS, seed=1)
    assert cells([record.summary for record in RECORDS]) == {
        "names": ["3", "100.0", "7", "100.0", "0", "0"],  # May is a word with a capital
        "numbers": ["3", "100.0", "3", "100.0", "0", "0"],
        "all": ["6", "100.0", "10", "100.0", "0", "0"],
    }
    assert "all facts of a summary right: 100.0 (100.0 to 100.0) %" in table


def test_wrong_names_and_numbers_are_told_apart_by_where_they_come_from():
    # Bo Urk and 12 are in the document, O'Nall and 1,2000 nowhere
    found = cells(["Ada O'Nall finds 12 coins in New Ulb. It was on 3 May by Bo Urk 1,2000.", RECORDS[1].summary])
    assert found["names"] == ["3", "66.7", "9", "66.7", "2", "1"]
    assert found["numbers"] == ["3", "66.7", "4", "50.0", "1", "1"]
    assert found["all"] == ["6", "66.7", "13", "61.5", "3", "2"]


def test_words_that_the_summaries_use_otherwise_are_no_names():
    assert score_facts.ordinary_words(RECORDS) == {"finds", "coins", "in", "It", "was", "on", "sells", "lamps"}
    assert cells(["It was on sells lamps", "It It It"])["all"][2] == "0"


def test_a_name_that_is_written_twice_is_wrong_once():
    assert cells(["Ada O'Nal finds Ada", RECORDS[1].summary])["names"][2:4] == ["5", "80.0"]


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("Sold 12.", "12", True),
        ("Sold 12, then 5", "12", True),
        ("Sold 12.5", "12", False),
        ("Sold 1,200", "200", False),
        ("won 3-12", "12", False),
        ("at 12:30", "12", False),
        ("Sold 412", "12", False),
        ("code QX-4817", "QX-4817", True),
        ("code AQX-4817", "QX-4817", False),
        ("code QX-48170", "QX-4817", False),
        ("Ulb's mayor", "Ulb", True),
        ("Ulb-based", "Ulb", True),
        ("Ulbå", "Ulb", False),
        ("sold by Bim & Sons.", "Bim & Sons", True),
        ("ada o'nal", "Ada O'Nal", False),
    ],
)
def test_a_fact_counts_only_as_a_whole(text, fact, expected):
    assert score_facts.holds(text, fact) is expected


def test_the_interval_is_that_of_independent_draws():
    # 400 records with one fact each, 300 right: normal approximation 75 ± 1.96 * sqrt(0.75 * 0.25 / 400) = 70.8 to 79.2
    text = score_facts.share([1] * 300 + [0] * 100, [1] * 400, seed=3)
    value, low, high = (float(number) for number in re.findall(r"[\d.]+", text))
    assert value == 75.0
    assert abs(low - 70.76) < 0.7
    assert abs(high - 79.24) < 0.7
    assert score_facts.share([0, 0], [0, 0], seed=3) == "-"


def test_a_number_of_outputs_that_differs_is_refused():
    with pytest.raises(UserError, match="1 outputs for 2 records"):
        score_facts.table(["a"], RECORDS, seed=1)


# The command line


@pytest.fixture
def records_file(tmp_path):
    path = tmp_path / "data" / "test.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(vars(record)) + "\n" for record in RECORDS), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, records_file):
    """A run folder with its outputs, of a test set named main."""
    fields = {"source_field": "document", "target_field": "summary"}
    data = {
        "root": str(records_file.parent),
        "train": {"path": "train.jsonl", **fields},
        "valid": {"path": "test.jsonl", **fields},
        "test": {"main": {"path": "test.jsonl", **fields}},
    }
    folder = tmp_path / "run"
    (folder / "generations").mkdir(parents=True)
    text = saved.to_yaml(parse({"name": "run", "data": data}))
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    summaries = "".join(record.summary + "\n" for record in RECORDS)
    (folder / "generations" / "main.txt").write_text(summaries, encoding="utf-8")
    return folder


def test_a_run_and_a_file_give_the_same_table(run, records_file, capsys):
    assert score_facts.main([str(run)]) == 0
    of_run = capsys.readouterr().out
    outputs = run / "generations" / "main.txt"
    assert score_facts.main([str(outputs), "--records", str(records_file)]) == 0
    assert capsys.readouterr().out.split("\n", 1)[1] == of_run.split("\n", 1)[1]
    assert "| all | 6 | 100.0 (100.0 to 100.0) | 10 | 100.0 (100.0 to 100.0) | 0 | 0 |" in of_run


def test_several_runs_are_scored_in_turn(run, capsys):
    assert score_facts.main([str(run), str(run), "--test-set", "main"]) == 0
    assert capsys.readouterr().out.count("| numbers | 3 |") == 2


@pytest.mark.parametrize(("facts", "found"), [(None, "None"), ("Ada", "'Ada'"), ([1], r"\[1\]"), ([""], r"\[''\]")])
def test_records_without_a_list_of_facts_are_refused(facts, found, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"document": "d", "summary": "s", "facts": facts}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"test.jsonl:1: field 'facts' must list .*found {found}"):
        score_facts.read_facts(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["{run}", "--test-set", "other"], "--test-set=other"), (["{run}/nowhere", "--records", "x"], "no such file")],
)
def test_mistakes_end_with_code_2(arguments, message, run, capsys):
    assert score_facts.main([argument.format(run=run) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_needs_its_records(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        score_facts.main([str(run / "generations" / "main.txt")])
    assert stopped.value.code == 2
    assert "--records" in capsys.readouterr().err
