"""The examples of the docstrings, each module's with a folder of its own."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import moa_nb

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(moa_nb.__path__, "moa_nb.") if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    """What a docstring shows is what comes out."""
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
