"""Which records of a log are kept on resume, and writes that fail."""

import logging
import sys

import pytest

from seq2seq.system.log_file import LogFile, LogFileHandler, ResumeFilter


def step_and_tag(record):
    step, _, tag = record.decode().partition(" ")
    return (int(step), tag) if tag else None


def test_records_up_to_the_checkpoint_are_kept_once_without_test_scores():
    logged = [b"1 a", b"1 b", b"1 a", b"2 a", b"damaged", b"2 test/news/bleu", b"3 a", b"2 b"]
    assert ResumeFilter(2).kept(logged, step_and_tag) == [b"1 a", b"1 b", b"2 a", b"2 b"]
    assert ResumeFilter(None).kept(logged, step_and_tag) == []
    assert ResumeFilter(None).kept([b"0 hparams"], step_and_tag) == []


def test_of_two_records_of_a_tag_at_a_step_the_first_is_kept():
    records = [b"1", b"one"]
    assert ResumeFilter(1).kept(records, lambda record: (1, "a")) == [b"1"]


def test_a_tag_that_is_logged_at_a_step_is_not_new():
    resume_filter = ResumeFilter(2)
    resume_filter.kept([b"1 b", b"2 a", b"2 test/news/bleu", b"3 b"], step_and_tag)
    assert [resume_filter.is_new(step, tag) for step, tag in [(2, "a"), (2, "b"), (2, "b"), (3, "b"), (3, "b")]] == [
        False, True, False, True, False,
    ]  # fmt: skip
    assert resume_filter.is_new(3, "test/news/bleu")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_full_device(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    file = LogFile(tmp_path / "metrics.jsonl")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            file.write(b"record")
        file.close()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_messages_to_a_full_device_cost_one_warning_on_the_console(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to("/dev/full")
    log = logging.getLogger("seq2seq")
    handlers = [LogFileHandler(tmp_path / "train.log"), logging.StreamHandler(sys.stderr)]
    for handler in handlers:
        log.addHandler(handler)
    try:
        for number in range(3):
            log.warning("message %d", number)
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == sorted([*(f"message {n}" for n in range(3)), lines[0]])
    assert "train.log" in lines[0]
    assert "No space left" in lines[0]


def test_a_file_name_of_other_bytes_can_be_logged(tmp_path):
    handler = LogFileHandler(tmp_path / "train.log")
    handler.emit(logging.makeLogRecord({"msg": "caf\udce9 ü"}))
    handler.close()
    assert (tmp_path / "train.log").read_text(encoding="utf-8") == "caf\\udce9 ü\n"
