"""95% intervals hold the truth in 93 to 97% of all worlds; ``benchmarks/coverage.py`` looks at many more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("world", "arguments", "repeats"),
    [
        ("share", (125, 0.05), 2000),
        ("share", (125, 0.03), 2000),
        ("share", (500, 0.1), 2000),
        ("share", (3610, 0.5), 1500),
        ("paired", (125, 0.1, 0.15), 1000),
        ("paired", (500, 0.1, 0.1), 1000),
        ("samples", (500, 0.3, 4), 1000),
        ("pooled", (3, 500, 0.1), 1000),
        ("pooled", (5, 500, 0.2), 1000),
        ("pooled_pair", (3, 500, 0.2), 1000),
    ],
)
def test_intervals_hold_the_truth(script: ModuleType, world: str, arguments: Any, repeats: int) -> None:
    assert 0.93 <= script.coverage(getattr(script, world)(*arguments), repeats) <= 0.97


def test_the_average_of_the_seven_sets(script: ModuleType) -> None:
    sizes = tuple(script.SIZES.values())
    assert sum(sizes) == 51_713
    assert 0.93 <= script.coverage(script.macro(sizes, script.SHARES), 800) <= 0.97


def test_why_shares_are_not_bootstrapped(script: ModuleType) -> None:
    assert script.coverage(script.bootstrapped_share(125, 0.03), 1000) < 0.91
    assert script.coverage(script.share(125, 0.03), 1000) >= 0.93
