"""Locks made from files: for another platform, with the best wheel, and what they don't depend on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow import toml
from k8sflow.environments import platforms, pylock, requirement_files, resolve, sources, uv, uv_lock
from k8sflow.environments.requirement_files import Hashes
from k8sflow.environments.wheels import stored_files
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.requested import Requested, Source, SourceKind
from tests.wheels import make_wheel, uv_settings

WHAT = "the packages of step a"
PYTHON = ".".join(map(str, sys.version_info[:2]))
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PROJECT = """\
[project]
name = "proj"
version = "1"
requires-python = ">=3.10"
dependencies = ["native", "onlymac ; sys_platform == 'darwin'", "plain"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheels = tmp_path / "wheels"
    for platform in ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_aarch64", "win_amd64"):
        make_wheel(wheels, "native", "1.0", {"native.py": repr(platform)}, tag=f"{TAG}-{TAG}-{platform}")
    for platform in ("manylinux_2_39_x86_64", "musllinux_1_2_x86_64"):
        make_wheel(wheels, "native", "1.0", {"native.py": repr(platform)}, tag=f"{TAG}-{TAG}-{platform}")
    make_wheel(wheels, "onlymac", "1.0", {"onlymac.py": ""})
    make_wheel(wheels, "plain", "1.0", {"plain.py": ""})
    for name, value in uv_settings(wheels, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    subprocess.run([uv.program(), "lock", "-q", f"--python={sys.executable}"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "wheel"),
    [
        ("x86_64-manylinux_2_28", "manylinux_2_28_x86_64"),
        ("aarch64-manylinux_2_28", "manylinux_2_17_aarch64"),
    ],
)
def test_a_lock_has_the_best_wheel_for_the_platform_of_a_pod(project: Path, platform: str, wheel: str) -> None:
    requested = Requested((), None, (Source(SourceKind.LOCK, "uv.lock"),))
    lock = resolve.resolve(WHAT, requested, project, platform=platform)
    files = stored_files(WHAT, lock)
    assert [file.file for file in files] == [f"native-1.0-{TAG}-{TAG}-{wheel}.whl", "plain-1.0-py3-none-any.whl"]
    assert files[0].blob == hashlib.sha256((project / "wheels" / files[0].file).read_bytes()).hexdigest()
    project_alone = Requested((), None, (Source(SourceKind.PYPROJECT, "pyproject.toml"),))
    compiled = resolve.resolve(WHAT, project_alone, project, platform=platform)
    assert [package.name for package in compiled.packages] == ["native", "plain"]


def test_a_lock_without_a_wheel_for_the_platform_is_refused(project: Path) -> None:
    requested = Requested((), "3.10", (Source(SourceKind.LOCK, "uv.lock"),))
    if PYTHON == "3.10":
        requested = Requested((), "3.11", requested.sources)
    with pytest.raises(DependencyError, match="no wheel of native 1"):
        resolve.resolve(WHAT, requested, project, platform="x86_64-manylinux_2_28")


def test_a_lock_with_a_version_that_k8sflow_can_not_use_is_refused() -> None:
    text = 'lock-version = "1.0"\n[[packages]]\nname = "click"\nversion = "7.0"\n'
    text += 'wheels = [{ url = "https://h/click-7.0-py3-none-any.whl", hashes = { sha256 = "0" } }]\n'
    with pytest.raises(DependencyError, match=r"uv.lock has click 7.0, and k8sflow itself.* needs click>=8.1"):
        uv_lock.reduced(WHAT, text, "uv.lock", PYTHON, None)


def test_a_written_lock_is_the_one_that_was_read() -> None:
    document = {
        "lock-version": "1.0",
        "packages": [
            {
                "name": "x",
                "archive": {"url": 'https://h/a"b\\c.whl', "size": 3, "hashes": {"sha256": "é"}},
                "list": [1, True, "y\x7f"],
                "odd key": {"a.b": "c"},
            }
        ],
    }
    text = pylock.dumped({**document, "packages": [{**document["packages"][0]}]})  # type: ignore[dict-item]
    text = text.replace("odd key =", '"odd key" =')
    assert toml.loads(text) == document


def test_only_files_with_a_known_hash_are_kept() -> None:
    text = '[[packages]]\nname = "X_y"\nwheels = [{ url = "a/1.whl", hashes = { sha256 = "11" } }, '
    text += (
        '{ url = "a/2.whl", hashes = { sha256 = "22" } }]\nsdist = { url = "a/x.tgz", hashes = { sha256 = "33" } }\n'
    )
    found = pylock.verified(WHAT, text, Hashes({"x-y": ("r.txt:1", frozenset({"sha256:22", "md5:0"}))}))
    assert toml.loads(found)["packages"][0] == {
        "name": "X_y",
        "wheels": [{"url": "a/2.whl", "hashes": {"sha256": "22"}}],
    }


@pytest.mark.parametrize(
    ("wanted", "conditions", "version"),
    [
        (None, [], PYTHON),
        ("3.9", [], "3.9"),
        (None, [("f", ">=3.8")], PYTHON),
        (None, [("f", "==3.9.*")], "3.9"),
        (">=3.9,<3.10", [("f", ">=3.8")], "3.9"),
        ("3.12.4", [("f", ">=3.12")], "3.12.4"),
        (None, [("f", ">3.9,<3.10")], "3.9"),
    ],
)
def test_the_version_of_python(wanted: str | None, conditions: list[tuple[str, str]], version: str) -> None:
    assert platforms.chosen_python(WHAT, wanted, conditions) == version


def test_a_broken_condition_for_python_is_refused() -> None:
    with pytest.raises(DependencyError, match="which is not a condition"):
        platforms.chosen_python(WHAT, None, [("f", "three")])


def test_lines_of_requirements_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(
        "x==1 \\\n  --hash=sha256:AA \\\n  --hash sha256:bb # c\n-rb.txt\n\n-c=c.txt\n-r a.txt\n"
    )
    (tmp_path / "b.txt").write_text("--extra-index-url=https://${ME}@h/simple\ny # z\nhttps://h/#egg\n")
    (tmp_path / "c.txt").write_text("z<1")
    monkeypatch.setenv("ME", "user")
    found = requirement_files.entries(WHAT, tmp_path / "a.txt")
    assert [(entry.file.name, entry.number, entry.is_constraint) for entry in found] == [
        ("a.txt", 1, False),
        ("a.txt", 4, False),
        ("b.txt", 1, False),
        ("b.txt", 2, False),
        ("b.txt", 3, False),
        ("a.txt", 6, False),
        ("c.txt", 1, True),
        ("a.txt", 7, False),
    ]
    assert requirement_files.indexes(found) == ["https://user@h/simple"]
    assert requirement_files.hashes(found).allowed == {"x": ("a.txt:1", frozenset({"sha256:aa", "sha256:bb"}))}


def test_what_counts_of_files_is_in_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = Requested((), None, (Source(SourceKind.REQUIREMENTS, "a.txt"),))

    def digest() -> str:
        return sources.read(WHAT, requested, tmp_path).digest

    (tmp_path / "a.txt").write_text("./own.whl\nx==${VERSION}\n")
    (tmp_path / "own.whl").write_text("1")
    seen = {digest()}
    (tmp_path / "own.whl").write_text("22")
    seen.add(digest())
    monkeypatch.setenv("VERSION", "1")
    seen.add(digest())
    (tmp_path / "a.txt").write_text("# a comment\n./own.whl\nx==${VERSION}\n")
    seen.add(digest())
    assert len(seen) == 3
    assert json.dumps(sorted(seen))
