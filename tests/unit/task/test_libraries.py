"""The versions of the packages that code uses."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from k8sflow.task.libraries import versions


def test_a_package_comes_with_those_that_it_requires() -> None:
    """The name of the package need not be that of its module."""
    found = versions({"pandas", "sklearn"}, sys.modules)
    assert found["pandas"] == metadata.version("pandas")
    assert found["scikit-learn"] == metadata.version("scikit-learn")
    assert found["numpy"] == metadata.version("numpy")


def test_modules_of_python_have_no_version_of_their_own() -> None:
    assert versions({"os", "json", "k8sflow"}, sys.modules) == {}


def test_a_module_of_no_package_counts_by_its_file() -> None:
    found = versions({"no_package"}, {"no_package": pytest})
    assert str(pytest.__file__) in found["module no_package"]
