"""An installed wheel works from any folder: commands, configurations and the bundled corpora."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, as an installation would leave it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True,
        timeout=240,
    )
    (wheel,) = folder.glob("seq2seq-*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.mark.slow
def test_commands_of_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "seq2seq", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    where = subprocess.run(
        [sys.executable, "-c", "import seq2seq; print(seq2seq.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(installed) in where.stdout
    for experiment in ("demo_translation", "demo_summarization"):
        done = run("prepare", f"experiment={experiment}")
        assert done.returncode == 0, done.stderr[-2000:]
    done = run(
        "train", "experiment=demo_translation", "model.d_model=32", "model.encoder_size=16", "model.embedding_size=16",
        "trainer.max_steps=6", "optim.warmup_steps=2", "trainer.eval_examples=4", "metrics.bootstrap=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "outputs/demo_translation/results.json").is_file()
