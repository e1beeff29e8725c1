import json

import pytest
from omegaconf import OmegaConf
from torch import nn

from seq2seq.cli.main import run_command
from seq2seq.errors import UserError
from seq2seq.runs.tables import parameter_table, results_table, sweep_table


def test_parameters_by_module_with_shared_ones_once():
    model = nn.ModuleDict({"embedding": nn.Embedding(10, 4), "output": nn.Linear(4, 10, bias=True)})
    model["output"].weight = model["embedding"].weight
    table = parameter_table((name, tensor.numel()) for name, tensor in model.named_parameters())
    cells = [line.split() for line in table.splitlines()]
    assert cells == [
        ["module", "parameters", "share"],
        ["embedding", "40", "80.0%"],
        ["output", "10", "20.0%"],
        ["total", "50"],
    ]


def test_parameters_of_large_models_are_grouped_by_thousands():
    table = parameter_table([("encoder.layers.0.weight", 1_500_000), ("encoder.layers.1.weight", 500_000)])
    rows = [line.split()[:2] for line in table.splitlines()[1:]]
    assert rows == [["encoder", "2,000,000"], ["total", "2,000,000"]]
    assert parameter_table([]).splitlines()[-1].split() == ["total", "0"]


def test_results_table_shows_scores_intervals_and_signatures():
    results = {
        "test": {
            "flickr": {
                "bleu": {"score": 38.912, "signature": "nrefs:1|tok:13a", "low": 37.5, "high": 40.25},
                "ter": {"score": 41.0, "signature": "nrefs:1|tok:tercom"},
                "rouge1": {"score": 50.0, "signature": "nrefs:1|type:rouge1|refs:best"},
                "rouge2": {"score": 40.0, "signature": "nrefs:1|type:rouge2|refs:best"},
            }
        }
    }
    table, signatures = results_table(results).split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 5
    assert lines[1].split("  ")[0] == "flickr"
    assert "38.91" in lines[1]
    assert "37.50 to 40.25" in lines[1]
    assert " to " not in lines[2]
    assert signatures.splitlines()[1:] == [
        "bleu", "  nrefs:1|tok:13a", "ter", "  nrefs:1|tok:tercom", "rouge1, rouge2", "  nrefs:1|refs:best",
    ]  # fmt: skip
    assert results_table({"test": {}}) == "no test sets were scored"


def test_baselines_stand_beside_the_model():
    def entries(**scores):
        return {name: {"score": value, "signature": "s"} for name, value in scores.items()}

    results = {
        "test": {"dev": entries(rouge1=23.456, length_ratio=98.0, loss=3.2), "other": entries(rouge1=1.0)},
        "baselines": {
            "dev": {"lead": entries(rouge1=16.0, length_ratio=427.8), "reference": entries(length_ratio=100)}
        },
    }
    first, second, third = results_table(results).split("\n\n")
    assert f"{first}\n\n{third}" == results_table({"test": results["test"]})
    assert [line.split() for line in second.splitlines()] == [
        ["dev", "model", "lead", "reference"],
        ["rouge1", "23.46", "16.00", "–"],
        ["length_ratio", "98.00", "427.80", "100.00"],
    ]


def write_run(folder, settings, *, value=None, metric="valid/bleu", mode="max", steps=None):
    """Writes what a run leaves: results.json if it has a value, metrics.jsonl up to `steps` otherwise."""
    folder.mkdir(parents=True)
    config = {
        "name": "sweep",
        "seed": 1,
        "trainer": {"metric": metric, "max_steps": 1000},
        "optim": {"lr": 0.001, "betas": [0.9, 0.98]},
    }
    OmegaConf.save(OmegaConf.merge(config, settings), folder / "config.yaml")
    if steps is not None:
        entries = [
            {"step": step, "tag": tag, "value": value, "wall_time": 0.0}
            for step in range(100, steps + 1, 100)
            for tag, value in ((metric, step / 100), ("train/loss", None))
        ]
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / "metrics.jsonl").write_text(text + '{"step": 99', encoding="utf-8")
        return
    results = {
        "name": "sweep",
        "complete": True,
        "best_step": 800,
        "objective": {"metric": metric, "mode": mode, "value": value},
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def cells_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_sweep_is_ranked_and_shows_only_what_differs(tmp_path):
    write_run(tmp_path / "a", {"optim": {"lr": 0.1}, "name": "a"}, value=20.0)
    write_run(tmp_path / "b", {"optim": {"lr": 0.2}}, value=30.5)
    write_run(tmp_path / "c", {"optim": {"lr": 0.2, "betas": [0.9, 0.999]}, "extra": True}, value=25.0)
    rows = cells_of(sweep_table(tmp_path))
    assert rows[0] == [
        "rank",
        "run",
        "objective",
        "value",
        "step",
        "optim.lr",
        "optim.betas",
        "extra",
        "status",
    ]
    assert set("".join(rows[1])) == {"-"}
    assert rows[2] == ["1", "b", "valid/bleu", "30.5000", "800", "0.2", "[0.9, 0.98]", "–", "complete"]
    assert [row[1] for row in rows[2:]] == ["b", "c", "a"]
    assert rows[3][6:8] == ["[0.9, 0.999]", "true"]


def test_lower_is_better_when_the_objective_says_so(tmp_path):
    for name, value in (("a", 3.0), ("b", -1.0), ("c", 2.0)):
        write_run(tmp_path / name, {}, value=value, metric="valid/loss", mode="min")
    assert [row[1] for row in cells_of(sweep_table(tmp_path))[2:]] == ["b", "c", "a"]


def test_unfinished_and_damaged_runs_come_last_and_say_how_far_they_got(tmp_path):
    write_run(tmp_path / "a", {"seed": 1}, steps=300)
    write_run(tmp_path / "b", {"seed": 2}, value=1.0)
    write_run(tmp_path / "c", {"seed": 3}, value=float("nan"))
    write_run(tmp_path / "d", {"seed": 4}, value=1.0)
    (tmp_path / "d" / "results.json").write_text('{"name": ', encoding="utf-8")
    write_run(tmp_path / "e", {"seed": 5}, value=1.0)
    (tmp_path / "e" / "config.yaml").write_text("a: [b", encoding="utf-8")
    write_run(tmp_path / "f", {"seed": 6}, steps=0)
    rows = {row[1]: row for row in cells_of(sweep_table(tmp_path))[2:]}
    assert next(iter(rows)) == "b"
    assert rows["a"] == ["–", "a", "valid/bleu", "3.0000", "300", "1", "not complete: step 300 of 1000"]
    assert rows["c"][0] == rows["c"][3] == "–"
    assert rows["d"][-1] == "results.json is damaged"
    assert rows["e"][-1] == "config.yaml is damaged"
    assert rows["f"][-1] == "not complete: step 0 of 1000"


def test_different_objectives_have_rankings_of_their_own(tmp_path):
    write_run(tmp_path / "a", {}, value=20.0)
    write_run(tmp_path / "b", {}, value=2.0, metric="valid/loss", mode="min")
    write_run(tmp_path / "c", {}, value=30.0)
    rows = cells_of(sweep_table(tmp_path))[2:]
    assert [(row[0], row[1]) for row in rows] == [("1", "c"), ("2", "a"), ("1", "b")]


def test_json_has_the_same_content_and_is_strict(tmp_path):
    write_run(tmp_path / "sweep" / "x", {"optim": {"lr": 0.1}}, value=float("inf"))
    write_run(tmp_path / "sweep" / "y", {"optim": {"lr": 0.2}}, value=4.0)
    records = json.loads(sweep_table(tmp_path, as_json=True), parse_constant=pytest.fail)
    assert records[0] == {
        "rank": 1,
        "run": "sweep/y",
        "complete": True,
        "objective": {"metric": "valid/bleu", "mode": "max", "value": 4.0},
        "step": 800,
        "config": {"optim.lr": 0.2},
        "status": "complete",
    }
    assert records[1]["rank"] is None
    assert records[1]["objective"]["value"] is None


def test_cells_cannot_break_the_table(tmp_path):
    write_run(tmp_path / "a", {"data": {"root": "x|y\nz"}}, value=1.0)
    write_run(tmp_path / "b", {"data": {"root": "plain"}}, value=2.0)
    lines = sweep_table(tmp_path).splitlines()
    assert len(lines) == 4
    assert "x\\|y z" in lines[3]


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        sweep_table(tmp_path / "missing")
    (tmp_path / ".cache").mkdir()
    with pytest.raises(UserError, match="has no runs in it"):
        sweep_table(tmp_path)


def test_an_unknown_format_is_refused(tmp_path, capsys):
    assert run_command("report", [f"folder={tmp_path}", "format=html"]) == 2
    assert "Invalid value 'html', expected one of [markdown, json]" in capsys.readouterr().err
