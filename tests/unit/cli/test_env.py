"""The command env."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from k8sflow.cli.main import main
from k8sflow.environments import cache, local
from k8sflow.environments.lock import Lock


def test_prune_removes_what_was_not_used_for_some_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    python = ".".join(map(str, sys.version_info[:2]))
    old, new = (Lock((), python, name, 'lock-version = "1.0"\n') for name in ("old", "new"))
    for lock in (old, new):
        local.ensure("it", lock)
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(local.python(old).parents[1], (long_ago, long_ago))
    (cache.folder("wheels") / "w").write_bytes(b"wheel")
    done = CliRunner().invoke(main, ["env", "prune"])
    assert done.exit_code == 0, done.output
    assert "Removed 1 environment and" in done.output
    assert not local.python(old).exists()
    assert local.python(new).exists()
    done = CliRunner().invoke(main, ["env", "prune", "--unused-for", "0"])
    assert "Removed 1 environment and" in done.output
    assert not local.python(new).exists()
    assert not list(cache.folder("wheels").iterdir())


def test_a_used_environment_counts_as_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = Lock((), ".".join(map(str, sys.version_info[:2])), "here", 'lock-version = "1.0"\n')
    folder = local.ensure("it", lock).parents[1]
    os.utime(folder, (0, 0))
    local.ensure("it", lock)
    assert folder.stat().st_mtime > 0
