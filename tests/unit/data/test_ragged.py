from __future__ import annotations

import numpy as np
import pytest

from seq2seq.data.ragged import INT64, is_nondecreasing


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [([], True), ([0], True), ([-1], False), ([0, 0, 3, 3, 7], True), ([2, 5, 3], False), ([2, 1], False)],
)
def test_nondecreasing_offsets(offsets: list[int], expected: bool) -> None:
    assert is_nondecreasing(np.array(offsets, dtype=INT64)) is expected
