import json
import logging
import math
import resource
import shutil
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.summary.writer.record_writer import RecordWriter

from seq2seq.runs.tracking import Tracker, copy_probs_markdown, escape_markdown, samples_markdown


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def events_of(folder):
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_scalars_reach_both_files(tmp_path):
    tracker = Tracker(tmp_path)
    before = time.time()
    tracker.log(10, {"train/loss": 2.5, "train/lr": np.float32(0.5)})
    tracker.log(20, {"train/loss": 1.5})
    lines = lines_of(tmp_path)  # before flush or close: a killed process loses nothing
    assert [list(line) for line in lines] == [["step", "tag", "value", "wall_time"]] * 3
    assert [(x["step"], x["tag"], x["value"]) for x in lines] == [
        (10, "train/loss", 2.5),
        (10, "train/lr", 0.5),
        (20, "train/loss", 1.5),
    ]
    assert before <= lines[0]["wall_time"] <= time.time()
    events = events_of(tmp_path)
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert [(s.step, s.value) for s in scalars["train/loss"]] == [(10, 2.5), (20, 1.5)]
    assert [(s.step, s.value) for s in scalars["train/lr"]] == [(10, 0.5)]
    assert scalars["train/loss"][0].wall_time == lines[0]["wall_time"]
    tracker.close()
    tracker.close()


def test_values_that_are_not_finite_leave_strict_json(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.0})
    tracker.close()

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    values = [json.loads(line, parse_constant=refuse)["value"] for line in text.splitlines()]
    assert values == [None, None, None, 0.0]
    assert math.isnan(events_of(tmp_path).Scalars("a")[0].value)


def test_resume_cuts_back_to_the_checkpoint(tmp_path):
    tracker = Tracker(tmp_path)
    for step in range(1, 8):
        tracker.log(step, {"train/loss": float(step)})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "tag": "train/lo')  # a line that the kill cut off
    tracker = Tracker(tmp_path, resume_step=4)
    tracker.log(5, {"train/loss": 50.0})
    tracker.close()
    assert [(x["step"], x["value"]) for x in lines_of(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]
    scalars = events_of(tmp_path).Scalars("train/loss")
    assert [(s.step, s.value) for s in scalars] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_resume_twice_and_start_over(tmp_path):
    for resume_step in (None, 0, 2):
        tracker = Tracker(tmp_path, resume_step=resume_step)
        for step in (1, 2, 3):
            if step > (resume_step or 0):
                tracker.log(step, {"x": float(step)})
        tracker.close()
        assert [x["step"] for x in lines_of(tmp_path)] == [1, 2, 3]
        assert [s.step for s in events_of(tmp_path).Scalars("x")] == [1, 2, 3]
    Tracker(tmp_path).close()
    assert lines_of(tmp_path) == []
    events = events_of(tmp_path)
    assert "x" not in events.Tags()["scalars"] or events.Scalars("x") == []


def evaluate(tracker, step):
    """Logs what an evaluation does, each thing in a write of its own."""
    pixels = np.full((1, 1, 3), step, dtype=np.uint8)
    tracker.text(step, "samples", f"of {step}")
    tracker.image(step, "attention/0", pixels)
    tracker.log(step, {"valid/loss": 1.0 / step, "valid/bleu": float(step)})


def shown(folder):
    """What the two readers see of a run: by tag, the steps and values, in order."""
    events = events_of(folder)
    tags = events.Tags()
    lines = [(x["step"], x["tag"], x["value"]) for x in lines_of(folder)]
    return (
        lines,
        {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]},
        {tag: [(e.step, e.tensor_proto.string_val[:]) for e in events.Tensors(tag)] for tag in tags["tensors"]},
        {tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in tags["images"]},
    )


def test_killed_at_any_byte_the_resumed_log_equals_an_uninterrupted_one(tmp_path):
    """The checkpoint is that of step 2, saved before its evaluation, which the resumed run makes up for."""
    folder = tmp_path / "run"
    tracker = Tracker(folder)
    tracker.hparams({"optim.lr": 0.1}, ["valid/bleu"])
    tracker.log(1, {"train/loss": 3.0})
    evaluate(tracker, 1)
    tracker.log(2, {"train/loss": 2.0})
    events = next((folder / "tensorboard").iterdir())
    before = events.stat().st_size, (folder / "metrics.jsonl").stat().st_size
    evaluate(tracker, 2)
    tracker.log(3, {"train/loss": 1.0})
    tracker.log(3, {"test/news/bleu": 30.0})
    tracker.close()
    written = events.read_bytes(), (folder / "metrics.jsonl").read_bytes()
    expected = shown(folder)
    for cut in range(before[0], len(written[0]) + 1):
        share = (cut - before[0]) / (len(written[0]) - before[0])
        shutil.rmtree(folder / "tensorboard")
        (folder / "tensorboard").mkdir()
        events.write_bytes(written[0][:cut])
        (folder / "metrics.jsonl").write_bytes(written[1][: before[1] + round(share * (len(written[1]) - before[1]))])
        tracker = Tracker(folder, resume_step=2)
        evaluate(tracker, 2)
        tracker.log(3, {"train/loss": 1.0})
        tracker.log(3, {"test/news/bleu": 30.0})
        tracker.close()
        assert shown(folder) == expected, cut


def test_scores_of_test_sets_are_those_of_the_last_scoring(tmp_path):
    """A scoring that was killed is repeated; one before a limit was raised does not belong to the longer run."""
    tracker = Tracker(tmp_path)
    tracker.log(5, {"train/loss": 1.0})
    tracker.log(5, {"test/news/bleu": 1.0})
    tracker.close()
    tracker = Tracker(tmp_path, resume_step=5)
    assert [line["tag"] for line in lines_of(tmp_path)] == ["train/loss"]
    assert "test/news/bleu" not in events_of(tmp_path).Tags()["scalars"]
    tracker.log(6, {"test/news/bleu": 2.0})
    tracker.close()
    assert [(e.step, e.value) for e in events_of(tmp_path).Scalars("test/news/bleu")] == [(6, 2.0)]


def test_a_kill_between_renaming_and_clearing_away_doubles_nothing(tmp_path):
    Tracker(tmp_path).log(1, {"x": 1.0})
    (old,) = (tmp_path / "tensorboard").iterdir()
    content = old.read_bytes()
    Tracker(tmp_path, resume_step=1).close()
    old.write_bytes(content)  # not yet deleted
    old.with_name(f".{old.name}.123").write_bytes(content[:40])  # nor the temporary file of a process before
    Tracker(tmp_path, resume_step=1).close()
    assert [(e.step, e.value) for e in events_of(tmp_path).Scalars("x")] == [(1, 1.0)]
    for _ in range(2):
        Tracker(tmp_path, resume_step=1).close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # the file and its emptied predecessor


def test_a_reader_that_watches_sees_the_resumed_log_too(tmp_path):
    tracker = Tracker(tmp_path)
    for step in range(1, 8):
        tracker.log(step, {"x": float(step)})
    watching = events_of(tmp_path)
    assert [e.step for e in watching.Scalars("x")] == [1, 2, 3, 4, 5, 6, 7]
    tracker.close()
    tracker = Tracker(tmp_path, resume_step=4)
    tracker.log(5, {"x": 50.0})
    for _ in range(2):
        watching.Reload()
    assert [(e.step, e.value) for e in watching.Scalars("x")] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"[1]", b"3", b'{"step": 1e999, "tag": "x"}', b'{"step": "1", "tag": "x"}', b'{"step": 1}',
     b"[" * 10**5, b"\x00" * 500],
)  # fmt: skip
def test_a_damaged_line_is_dropped(tmp_path, line):
    Tracker(tmp_path).log(1, {"x": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    Tracker(tmp_path, resume_step=1).log(2, {"x": 2.0})
    assert [x["step"] for x in lines_of(tmp_path)] == [1, 2]


def test_a_record_that_is_no_event_is_dropped(tmp_path):
    """Its checksum is right: somebody made it."""
    tracker = Tracker(tmp_path)
    tracker.log(1, {"a": 1.0})
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    with file.open("ab") as events:
        RecordWriter(events).write(b"\xff\xff\xff")
    Tracker(tmp_path, resume_step=1).close()
    assert [(s.step, s.value) for s in events_of(tmp_path).Scalars("a")] == [(1, 1.0)]


def test_text_image_and_hparams(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, 3:, 0] = 255
    tracker = Tracker(tmp_path)
    tracker.hparams({"optim.lr": 0.1, "model.tie": True, "optim.betas": [0.9, 0.98], "x": None}, ["valid/bleu"])
    tracker.text(5, "samples", "**hello**")
    tracker.image(5, "attention/0", pixels)
    tracker.close()
    events = events_of(tmp_path)
    assert events.Tensors("samples/text_summary")[0].tensor_proto.string_val == [b"**hello**"]
    image = events.Images("attention/0")[0]
    assert (image.step, image.width, image.height) == (5, 6, 4)
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # no sub-run
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    recorded = HParamsPluginData.FromString(content).session_start_info.hparams
    assert recorded["optim.lr"].number_value == 0.1
    assert {k: recorded[k].string_value for k in ("model.tie", "optim.betas", "x")} == {
        "model.tie": "true",
        "optim.betas": "[0.9, 0.98]",
        "x": "null",
    }


def test_deleted_event_folder_costs_one_warning(tmp_path, caplog, capfd):
    tracker = Tracker(tmp_path)
    tracker.log(1, {"x": 1.0})
    shutil.rmtree(tmp_path / "tensorboard")
    with caplog.at_level(logging.WARNING):
        for step in (2, 3, 4):
            tracker.log(step, {"x": 1.0})
            tracker.text(step, "t", "text")
            tracker.flush()
        tracker.close()
    assert len(caplog.records) == 1
    assert "training continues" in caplog.text
    assert [x["step"] for x in lines_of(tmp_path)] == [1, 2, 3, 4]
    assert "Traceback" not in capfd.readouterr().err


def test_full_disk_costs_one_warning_and_leaves_whole_records(tmp_path, caplog):
    tracker = Tracker(tmp_path)
    tracker.log(1, {"train/loss": 1.0})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # room for a part of a line
        try:
            for step in (2, 3):
                tracker.log(step, {"train/loss": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum("metrics.jsonl" in record.getMessage() for record in caplog.records) == 1
    tracker.log(4, {"train/loss": 4.0})
    tracker.close()
    assert [x["step"] for x in lines_of(tmp_path)] == [1, 4]
    assert [s.step for s in events_of(tmp_path).Scalars("train/loss")] == [1, 4]


def test_folder_that_cannot_be_made_costs_warnings_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(tmp_path / "file" / "run")
        tracker.log(1, {"x": 1.0})
        tracker.flush()
        tracker.close()
    assert "training continues" in caplog.text


def test_without_tensorboard_there_are_lines_and_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(tmp_path)
        tracker.log(1, {"x": 1.0})
        tracker.text(1, "t", "text")
        tracker.close()
    assert len(caplog.records) == 1
    assert len(lines_of(tmp_path)) == 1


def test_a_tracker_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = Tracker()
    tracker.log(1, {"x": 1.0})
    tracker.text(1, "t", "m")
    tracker.image(1, "i", np.zeros((1, 1, 3), dtype=np.uint8))
    tracker.hparams({}, [])
    tracker.flush()
    tracker.close()
    assert list(tmp_path.iterdir()) == []


NASTY = "a | b `code` <script>x</script> &amp; *b* _i_ [l](u) ![i](u) # ~~s~~ \\| $x$ 1. <b>"


class Cells(HTMLParser):
    """The cells of a table and what is bold in it, as a browser would show them."""

    def __init__(self, table):
        super().__init__()
        self.cells, self.bold, self.tags = [], [], set()
        self._in_bold = False
        self.feed(markdown_to_safe_html(table))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")
        elif tag == "br":
            self.cells[-1] += "\n"
        self._in_bold = tag == "strong"

    def handle_endtag(self, tag):
        self._in_bold = False

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data
        if self._in_bold:
            self.bold.append(data)


def test_escaped_text_shows_as_itself_where_tensorboard_renders_it():
    table = samples_markdown([{"source": NASTY, "output": "two\nlines"}, {"source": "日本", "output": "é"}])
    page = Cells(table)
    assert [cell.rstrip("\n") for cell in page.cells] == [NASTY, "two\nlines", "日本", "é"]
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "br"}


def test_samples_are_cut_and_may_be_none():
    assert samples_markdown([]) == ""
    table = samples_markdown([{"source": "x" * 50}], max_characters=10)
    assert "| " + "x" * 9 + "… |" in table
    assert escape_markdown("plain words") == "plain words"


def test_copied_tokens_are_bold_and_escaped_where_tensorboard_renders_it():
    tokens = ["▁the", "|", "<b>", "*", "↵", "</s>"]
    cell = copy_probs_markdown(tokens, [0.994, 0.5, 0.49, 1.0, 0.0, 0.003])
    page = Cells(samples_markdown([{"output": "x", "copied, %": cell}, {"output": "y", "copied, %": cell}]))
    shown = "▁the 99 · | 50 · <b> 49 · * 100 · ↵ 0 · </s> 0"
    assert [shown_cell.rstrip("\n") for shown_cell in page.cells] == ["x", shown, "y", shown]
    assert page.bold == ["▁the 99", "| 50", "* 100"] * 2
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "br", "strong"}


def test_of_a_long_output_the_first_copied_tokens_are_shown():
    assert copy_probs_markdown(["a"] * 3, [0.1] * 3, max_tokens=2) == "a 10 · a 10 · …"
    assert copy_probs_markdown([], []) == ""
