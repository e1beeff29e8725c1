"""How long the fuzz tests go on, and how many inputs they tried.

`SEQ2SEQ_FUZZ_EXAMPLES` is the number of inputs that a test tries; a module whose inputs cost more says how many times
more in `COST`. The same inputs come up in each run; a higher number adds others.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("SEQ2SEQ_FUZZ_EXAMPLES", "250"))
HERE = Path(__file__).parent

tried: dict[str, int] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.slow)
        test = getattr(item, "obj", None)
        name = getattr(test, "__name__", "")  # the same for all parameters of a fixture
        if hasattr(test, "hypothesis") and name not in tried:
            tried[name] = 0
            settings(
                max_examples=max(1, EXAMPLES // getattr(item.module, "COST", 1)),  # type: ignore[attr-defined]
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )(test)
            test.hypothesis.inner_test = counted(test.hypothesis.inner_test, name)


def counted(test: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(test)
    def counting(*args: Any, **kwargs: Any) -> Any:
        tried[name] += 1
        return test(*args, **kwargs)

    return counting


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(tried.values()):
        terminalreporter.section("fuzzing")
        terminalreporter.write_line(f"{sum(tried.values()):,} inputs tried in {len(tried)} tests")
