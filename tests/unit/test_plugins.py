"""k8sflow.plugins, the API for packages that extend k8sflow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from k8sflow import plugins
from k8sflow.flow.decorators import registry

PACKAGE = """
from typing import Annotated
from k8sflow.plugins import Option, decorator

@decorator("prints around the step")
def loud(*, volume: Annotated[int, Option(int, "a number")] = 3) -> None: ...
"""


def test_all_is_sorted_and_complete() -> None:
    """Removing a name from here breaks the promise in CONTRIBUTING.md."""
    assert plugins.__all__ == sorted(plugins.__all__)
    assert set(plugins.__all__) >= {"Around", "Decorator", "Option", "SecretStore", "Serializer", "decorator"}
    assert [name for name in plugins.__all__ if not hasattr(plugins, name)] == []


def test_a_decorator_of_a_package_needs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--with`` finds it by its module, and its options are parsed."""
    (tmp_path / "loudness_plugin.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "loudness_plugin", raising=False)

    decoration = registry.parse("loudness_plugin.loud:volume=5")

    assert isinstance(decoration.decorator, plugins.Decorator)
    assert decoration.parsed() == {"volume": 5}
