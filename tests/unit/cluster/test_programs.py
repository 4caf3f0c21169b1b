"""Programs that the tests build: each of them once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import host, programs
from tests.cluster.places import Places


def test_two_that_need_a_program_at_once_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first tests of two workers do on a new machine."""
    built: list[Path] = []
    never = threading.Event()

    def compile_(_go: str, _build: programs.Build, folder: Path, _progress: Any) -> None:
        built.append(folder)
        (folder / "versitygw").touch()
        never.wait(0.5)  # longer than the other one needs to find no folder

    monkeypatch.setattr(host, "go", lambda: "go")
    monkeypatch.setattr(programs, "_compile", compile_)
    places, found = Places(tmp_path), list[Path]()
    threads = [
        threading.Thread(target=lambda: found.append(programs.ensure(programs.VERSITYGW, places))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert [(folder / "versitygw").exists() for folder in found] == [True, True]
