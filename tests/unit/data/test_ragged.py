from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seq2seq.data.ragged import INT64, DamagedStoreError, RaggedArray, RaggedWriter, open_ragged

U2 = np.dtype("<u2")


@pytest.mark.parametrize(
    ("offsets", "sound"),
    [
        ([0, 0, 3, 3, 7], True),
        ([0, 3, 3, 7], False),  # one too few
        ([0, 0, 3, 3, 7, 7], False),
        ([0, 5, 3, 3, 7], False),
        ([0, -1, 3, 3, 7], False),
        ([1, 1, 3, 3, 7], False),
        ([0, 0, 3, 3, 6], False),
        ([], False),
    ],
)
def test_offsets_must_fit_the_values(tmp_path: Path, offsets: list[int], sound: bool) -> None:
    (tmp_path / "x").write_bytes(np.arange(7, dtype=U2).tobytes())
    (tmp_path / "x.offsets").write_bytes(np.array(offsets, dtype=INT64).tobytes())
    if sound:
        assert [row.tolist() for row in open_ragged(tmp_path, "x", U2, 4)] == [[], [0, 1, 2], [], [3, 4, 5, 6]]
    else:
        with pytest.raises(DamagedStoreError, match="does not hold 4 sequences"):
            open_ragged(tmp_path, "x", U2, 4)


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    writer = RaggedWriter(tmp_path, "x")
    parts = [[[1, 2], []], [], [[3]], [[], [4, 5, 6]]]
    for rows in parts:
        writer.append(RaggedArray.from_rows(rows, U2))
    writer.close()
    writer.close()
    read = open_ragged(tmp_path, "x", U2, 5)
    assert [row.tolist() for row in read] == [row for rows in parts for row in rows]
    assert len(read) == 5
    assert read.lengths.tolist() == [2, 0, 1, 0, 3]


def test_bytes_that_are_no_text_are_noticed() -> None:
    texts = RaggedArray.from_texts(["ä", "b"])
    assert [texts.text(0), texts.text(1)] == ["ä", "b"]
    with pytest.raises(DamagedStoreError, match="text 1 "):
        RaggedArray(texts.values, np.array([0, 1, 3])).text(1)
