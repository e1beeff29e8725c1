"""The layout: pyproject.toml lists the layers; few entries, short files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_imports_keep_to_the_layers() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_import_that_climbs_is_noticed_even_inside_a_function(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "seq2seq", tmp_path / "seq2seq", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "seq2seq/search/beam.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef climb():\n    from seq2seq.inference import generator\n    return generator\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "seq2seq.search.beam -> seq2seq.inference.generator" in done.stdout


def test_the_package_has_few_entries_and_short_files() -> None:
    special = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    entries = {path.name for path in (ROOT / "seq2seq").iterdir()} - special
    assert len(entries) <= 14, sorted(entries)
    files = [path for folder in ("seq2seq", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
