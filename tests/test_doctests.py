"""The instances shown in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import searchr1

MODULES = [module.name for module in pkgutil.walk_packages(searchr1.__path__, "searchr1.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0


def test_there_are_some() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 50
