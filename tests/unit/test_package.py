"""What a Python user imports."""

import subprocess
import sys

import pytest

import seq2seq


def test_public_names_are_there_and_no_other() -> None:
    assert all(hasattr(seq2seq, name) for name in seq2seq.__all__)
    assert issubclass(seq2seq.UserError, Exception)
    assert seq2seq.load.__module__ == "seq2seq.pipeline.load"
    assert seq2seq.Generator.__module__ == "seq2seq.inference.generator"
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = seq2seq.train


def test_errors_and_version_come_without_torch() -> None:
    script = "import sys, seq2seq; seq2seq.UserError, seq2seq.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
