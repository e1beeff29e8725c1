"""Which records of a log are kept on resume, and writes that fail."""

import logging
import sys

import pytest

from seq2seq.system.log_file import LogFile, LogFileHandler, ResumeFilter


def test_records_up_to_the_checkpoint_are_kept_once_without_test_scores():
    logged = [(1, "a"), (1, "b"), (1, "a"), (2, "a"), (2, "test/news/bleu"), (3, "a"), (2, "b")]
    assert ResumeFilter(2).keep_mask(logged) == [True, True, False, True, False, False, True]
    assert ResumeFilter(None).keep_mask(logged) == [False] * 7
    assert ResumeFilter(None).keep_mask([(0, "hparams")]) == [False]


def test_a_tag_that_is_logged_at_a_step_is_not_new():
    resume_filter = ResumeFilter(2)
    resume_filter.keep_mask([(1, "b"), (2, "a"), (2, "test/news/bleu"), (3, "b")])
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
