from __future__ import annotations

import numpy as np
import pytest

from seq2seq.data.ragged import INDEX, is_rising


@pytest.mark.parametrize(
    ("ends", "rising"),
    [([], True), ([0], True), ([-1], False), ([0, 0, 3, 3, 7], True), ([2, 5, 3], False), ([2, 1], False)],
)
def test_ends_rise_where_none_is_below_the_one_before(ends: list[int], rising: bool) -> None:
    assert is_rising(np.array(ends, dtype=INDEX)) is rising
