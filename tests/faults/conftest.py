"""A corpus that tiny models can be trained on in a second."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def backwards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Random words and the same backwards: train, validation and test set as overrides."""
    folder = tmp_path_factory.mktemp("backwards")
    random = np.random.default_rng(5)
    for split, count in (("train", 150), ("valid", 8), ("test", 4)):
        words = [["".join(random.choice(list("abcde"), 3)) for _ in range(random.integers(1, 6))] for _ in range(count)]
        lines = [" ".join(line) for line in words]
        (folder / f"{split}.src").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / f"{split}.tgt").write_text("".join(f"{line[::-1]}\n" for line in lines), encoding="utf-8")
    sides = (("source", "src"), ("target", "tgt"))
    overrides = [f"data.{s}.{side}={folder}/{s}.{end}" for s in ("train", "valid") for side, end in sides]
    return [*overrides, *(f"+data.test.back.{side}={folder}/test.{end}" for side, end in sides)]
