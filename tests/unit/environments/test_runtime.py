"""The part of k8sflow in the environments of steps."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from k8sflow.environments import runtime


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    return tmp_path / "k8sflow/runtime"


def forget() -> None:
    runtime._installed.cache_clear()
    runtime._name.cache_clear()


def test_what_is_installed_is_read_once_and_again_after_an_installation(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    before = runtime.constraints()
    (note,) = cache.glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "constraints": ["noted"]}))
    forget()
    assert runtime.constraints() == ("noted",)
    os.utime(packages, (1, 1))  # as an installation does
    forget()
    assert runtime.constraints() == before


@pytest.mark.parametrize("text", ["", "{}", '{"constraints": [], "entries": {"k8sflow": "/removed"}}', "[]"])
def test_a_damaged_or_outdated_note_is_replaced(cache: Path, text: str) -> None:
    before = runtime.constraints()
    (note,) = cache.glob("*.json")
    note.write_text(text)
    forget()
    assert runtime.constraints() == before
    assert (runtime.folder() / "k8sflow").exists()
