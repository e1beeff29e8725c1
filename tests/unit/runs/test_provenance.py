"""Where a run came from."""

import subprocess
from pathlib import Path

import pytest

from seq2seq.runs.provenance import commit

ROOT = Path(__file__).resolve().parents[3]


def test_the_commit_is_that_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout")
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    found = commit()
    assert found is not None
    assert found.removesuffix("+") == done.stdout.strip()
