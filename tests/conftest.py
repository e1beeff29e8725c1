"""What all tests share: one thread a process, and the folder of real corpora where there is one."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with multi30k/ and aeslc/, named by SEQ2SEQ_DATA."""
    folder = os.environ.get("SEQ2SEQ_DATA")
    if not folder or not (Path(folder) / "multi30k").is_dir():
        pytest.skip("SEQ2SEQ_DATA does not name a folder with multi30k/ and aeslc/")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        absent = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(absent)
