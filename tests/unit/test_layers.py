"""Imports go down only: parsed from the source, so that lazy imports count too."""

# ruff: noqa: E501

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "seq2seq"

# Layers from the ground up; within a layer, a module may import those named before it on the same line.
LAYERS = [
    [["seq2seq"],
     ["seq2seq.errors", "seq2seq.system.plain_yaml", "seq2seq.system.log_file", "seq2seq.system.console",
      "seq2seq.system.config",
      "seq2seq.system.device", "seq2seq.system.signals", "seq2seq.system.files",
      "seq2seq.system.atomic_folder"],
     ["seq2seq.system.distributed"], ["seq2seq.training.progress"], ["seq2seq.training.background"]],
    [
        ["seq2seq.models"],
        ["seq2seq.tokenizers.base", "seq2seq.tokenizers.config", "seq2seq.tokenizers.subword_sampling",
         "seq2seq.tokenizers.subword", "seq2seq.tokenizers.word", "seq2seq.tokenizers.multiline", "seq2seq.tokenizers.pair",
         "seq2seq.data", "seq2seq.data.batching", "seq2seq.data.loader"],
        ["seq2seq.tokenizers.word_vectors"],
        ["seq2seq.training.optim_config", "seq2seq.training.optim"],
        ["seq2seq.metrics", "seq2seq.metrics.significance"],
    ],
    [["seq2seq.search"], ["seq2seq.runs.manifest", "seq2seq.runs.checkpoint"],
     ["seq2seq.runs.tensorboard_file", "seq2seq.runs.tracking"], ["seq2seq.runs.plots"],
     ["seq2seq.runs.folder", "seq2seq.runs.provenance", "seq2seq.runs.report", "seq2seq.runs.comparison"]],
    [["seq2seq.training.alarms", "seq2seq.inference.oom", "seq2seq.inference.explanation", "seq2seq.inference.generator", "seq2seq.inference.evaluator",
      "seq2seq.training.validation", "seq2seq.training.config", "seq2seq.training.state", "seq2seq.training.running_metrics",
      "seq2seq.training.step", "seq2seq.training.trainer"]],
    [["seq2seq.config",
      "seq2seq.pipeline", "seq2seq.preflight"]],
    [["seq2seq.cli"]],
]  # fmt: skip

# What a part may know of torch and of the models, whatever its layer.
TORCH_FREE = ("seq2seq.metrics", "seq2seq.metrics.significance", "seq2seq.runs.comparison", "seq2seq.runs.report", "seq2seq.errors",
              "seq2seq.training.alarms", "seq2seq.tokenizers.pair", "seq2seq.data", "seq2seq.runs.folder",
              "seq2seq.system.console",
              "seq2seq.cli", "seq2seq.config",
              "seq2seq.models.families", "seq2seq.models.config", "seq2seq.models.gru_config",
              "seq2seq.models.transformer_config", "seq2seq.search.config", "seq2seq.training.optim_config",
              "seq2seq.training.config", "seq2seq.system.config")  # fmt: skip
CONTRACT = ("seq2seq.models.base", "seq2seq.models.output")


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    known = modules()
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inner}
    return names


LISTED = {member for layer in LAYERS for chain in layer for member in chain}


def group(module: str) -> str:
    """A folder counts as one part where it is listed as one: ``seq2seq.data.store`` is ``seq2seq.data``."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 1, -1)]
    return next((name for name in names if name in LISTED), module)


def position(module: str) -> tuple[int, int, int]:
    for layer, chains in enumerate(LAYERS):
        for chain, members in enumerate(chains):
            if group(module) in members:
                return layer, chain, members.index(group(module))
    raise AssertionError(f"{module} has no layer; give it one")


# The package's own names, typed or lazy, and the two entry points are allowed to look up.
EXCEPTIONS = {("seq2seq", "seq2seq.pipeline.load"), ("seq2seq.__main__", "seq2seq.cli.main")}


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down_only(module: str) -> None:
    for imported in imports(modules()[module]):
        if not imported.startswith("seq2seq") or (module, imported) in EXCEPTIONS:
            continue
        if group(imported) == group(module):
            continue
        layer, chain, place = position(module)
        other_layer, other_chain, other_place = position(imported)
        below = other_layer < layer or ((other_layer, other_chain) == (layer, chain) and other_place < place)
        assert below, f"{module} imports {imported}, which is not below it"


@pytest.mark.parametrize("module", sorted(modules()))
def test_parts_know_only_what_they_may(module: str) -> None:
    names = imports(modules()[module])
    if module in TORCH_FREE or group(module) in TORCH_FREE:
        assert not any(name.split(".")[0] == "torch" for name in names)
    if group(module) == "seq2seq.search":
        assert {name for name in names if name.startswith("seq2seq.models")} <= set(CONTRACT)
    if group(module) == "seq2seq.models":
        allowed = ("seq2seq.models", "seq2seq.errors")
        assert all(name.startswith(allowed) for name in names if name.startswith("seq2seq"))


def test_folders_have_no_cycles() -> None:
    graph = {name: {i for i in imports(path) if i in modules() and i != name} for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join([*trail, name])}"
        if name in done:
            return
        for imported in graph[name]:
            if (name, imported) not in EXCEPTIONS:
                visit(imported, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
