"""Locks: where their paths lead, what they must not hold, and when they no longer hold."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from k8sflow.environments import cache, platforms, resolve
from k8sflow.environments.lock import Lock
from k8sflow.environments.search_path import packages_first
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.requested import Requested


def test_paths_are_absolute_and_credentials_are_removed() -> None:
    text = (
        'archive = { path = "../../home/me/x.whl", hashes = {} }\n'
        'wheels = [{ url = "https://me:secret@index.example/x.whl#a" }]\n'
        'vcs = { url = "ssh://git@host.example/x" }\n'
    )
    assert resolve.portable(text, Path("/tmp/made")) == (
        'archive = { path = "/home/me/x.whl", hashes = {} }\n'
        'wheels = [{ url = "https://index.example/x.whl#a" }]\n'
        'vcs = { url = "ssh://git@host.example/x" }\n'
    )


@pytest.mark.parametrize("source", ["https://me:secret@index.example/x.whl", "git+https://${TOKEN}@host.example/x"])
def test_an_address_with_credentials_is_refused_without_showing_them(source: str, tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="the address of x has credentials") as caught:
        resolve.resolve("the packages of step a", Requested((f"x @ {source}",)), tmp_path)
    assert "secret" not in str(caught.value)


def test_the_lock_of_a_folder_holds_until_a_file_in_it_changes(tmp_path: Path) -> None:
    inner = tmp_path / "own/src/own"
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("1")
    requested = Requested(("own @ ./own",))
    text = f'[[packages]]\nname = "own"\ndirectory = {{ path = "{tmp_path / "own"}" }}\n'
    python = platforms.chosen_python("it", None, [])
    lock = Lock(requested.lines, python, resolve.host_platform(), text + resolve._folders(text))
    assert resolve.answers(lock, requested, None)
    (inner / "a.py").write_text("12")
    assert not resolve.answers(lock, requested, None)


def test_a_wheel_may_have_any_path() -> None:
    text = '[[packages]]\nname = "x"\nwheels = [{ path = "/tmp/a#b %25 c/x-1.0-py3-none-any.whl" }]\n'
    (package,) = Lock((), "3.12", "linux", text).packages
    assert package.wheel is not None
    assert package.wheel.name == "x-1.0-py3-none-any.whl"
    assert unquote(urlsplit(package.wheel.url).path) == "/tmp/a#b %25 c/x-1.0-py3-none-any.whl"


def test_a_token_of_an_index_that_changes_is_not_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = Requested(("x",))
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", "one")
    monkeypatch.setenv("UV_INDEX", "ours=https://me:one@index.example/simple")
    before = resolve._key(requested, tmp_path, "3.12", None)
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", "two")
    monkeypatch.setenv("UV_INDEX", "ours=https://me:two@index.example/simple")
    assert resolve._key(requested, tmp_path, "3.12", None) == before
    monkeypatch.setenv("UV_INDEX", "ours=https://me:two@other.example/simple")
    assert resolve._key(requested, tmp_path, "3.12", None) != before


def test_the_content_of_a_file_with_constraints_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path starts in the flow's folder, where uv works."""
    monkeypatch.setenv("UV_CONSTRAINT", "limits.txt")
    requested, found = Requested(("x",)), set()
    for text in ("x<1", "x<2"):
        (tmp_path / "limits.txt").write_text(text)
        found.add(resolve._key(requested, tmp_path, "3.12", None))
    assert len(found) == 2


def test_a_users_own_settings_of_uv_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_CONFIG_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = resolve._settings_file(tmp_path)
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv.toml").write_text('index-url = "https://index.example/simple"\n')
    assert resolve._settings_file(tmp_path) != before


def test_a_relative_folder_of_caches_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder("locks") == tmp_path / "home/.cache/k8sflow/locks"


def test_pythonpath_comes_behind_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    import sysconfig

    packages = sysconfig.get_path("purelib")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/other", "/flow"]))
    assert packages_first(["/flow", "/other", "/lib", packages, "/k8sflow"]) == [
        "/flow",
        "/lib",
        packages,
        "/other",
        "/k8sflow",
    ]
