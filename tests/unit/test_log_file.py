"""What of a log stays at a resume, and writes that fail."""

import logging
import sys

import pytest

from seq2seq.log_file import Kept, LogFile


def test_survivors_are_those_up_to_the_checkpoint_once_without_test_scores():
    logged = [(1, "a"), (1, "b"), (1, "a"), (2, "a"), (2, "test/news/bleu"), (3, "a"), (2, "b")]
    assert Kept(2).survivors(logged) == [True, True, False, True, False, False, True]
    assert Kept(None).survivors(logged) == [False] * 7
    assert Kept(None).survivors([(0, "hparams")]) == [False]


def test_what_is_there_at_a_step_is_not_new():
    kept = Kept(2)
    kept.survivors([(1, "b"), (2, "a"), (2, "test/news/bleu"), (3, "b")])
    assert [kept.new(step, tag) for step, tag in [(2, "a"), (2, "b"), (2, "b"), (3, "b"), (3, "b")]] == [
        False, True, False, True, False,
    ]  # fmt: skip
    assert kept.new(3, "test/news/bleu")


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
