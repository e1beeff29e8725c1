"""`make setup` builds the environment with the interpreter that PYTHON names, and builds none twice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# An interpreter of its own place, whose environments are copies of itself, and which only notes what is installed.
INTERPRETER = """#!/bin/sh
case "$1 $2" in
"-c "*) exec {real} -ISc 'import sys; sys.modules["pip"] = sys; sys.base_prefix = "{name}"; exec(sys.argv[1])' "$2" ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" && echo "{name} venv" >> calls ;;
"-m pip") echo "{name} pip" >> calls; case "$*" in *--fail*) exit 1 ;; esac ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Project:
    """A folder with the Makefile, and interpreters `old`, `new` and `python3` on the path."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("old", "new", "python3"):
            self.add(name, INTERPRETER.format(real=sys.executable, name=name))
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("pyproject.toml", "constraints.txt"):
            (folder / name).touch()

    def add(self, name: str, script: str) -> None:
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)

    def setup(self, *arguments: str, fails: bool = False) -> list[str]:
        """What it made the interpreters do."""
        path = f"{self.programs}:/usr/bin:/bin"
        done = subprocess.run(["make", "setup", *arguments], cwd=self.folder, env={"PATH": path}, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert (done.returncode != 0) == fails, done.stderr
        calls = self.folder / "calls"
        taken = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return taken


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("place", [[], ["VENV=elsewhere/venv"]])
def test_another_interpreter_rebuilds_the_environment_once(place: list[str], project: Project) -> None:
    assert project.setup(*place, "PYTHON=old") == ["old venv", "old pip", "old pip"]
    environment = project.folder / (place[0].partition("=")[2] if place else ".venv")
    (environment / "of_old").touch()
    assert project.setup(*place, "PYTHON=old") == []
    assert project.setup(*place, "PYTHON=new") == ["new venv", "new pip", "new pip"]
    assert not (environment / "of_old").exists()
    project.add("shim", 'exec new "$@"\n')
    path = project.programs / "new"
    assert [project.setup(*place, *named) for named in ([f"PYTHON={path}"], ["PYTHON=shim"], [])] == [[], [], []]


def test_an_environment_is_kept_where_no_interpreter_is_named(project: Project) -> None:
    project.setup("PYTHON=new")
    (project.folder / "constraints.txt").write_text("changed")
    assert project.setup() == ["new pip", "new pip"]


def test_what_failed_is_tried_again(project: Project) -> None:
    project.setup("PYTHON=old")
    assert project.setup("PYTHON=new", "PIP_ARGS=--fail", fails=True) == ["new venv", "new pip"]
    assert project.setup("PYTHON=new") == ["new pip", "new pip"]
    assert project.setup("PYTHON=new") == []


@pytest.mark.parametrize("name", ["absent", "ancient"])
def test_an_interpreter_of_no_use_leaves_the_environment_alone(name: str, project: Project) -> None:
    project.setup("PYTHON=old")
    outdated = "sys.version_info = (3, 10); exec"
    project.add("ancient", INTERPRETER.format(real=sys.executable, name="ancient").replace("exec(", f"{outdated}("))
    assert project.setup(f"PYTHON={name}", fails=True) == []
    assert project.setup("PYTHON=old") == []


def test_an_environment_whose_interpreter_is_gone_is_rebuilt(project: Project) -> None:
    project.setup("PYTHON=old")
    (project.folder / ".venv/bin/python").unlink()
    assert project.setup() == ["python3 venv", "python3 pip", "python3 pip"]
