"""Keys of the harness's caches: equal content has equal keys, and any change another key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import nodeimage, programs
from tests.cluster.places import Places, files_below, key_of, key_of_files, new_folder


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_the_key_tells_lists_apart(one: list[str], other: list[str]) -> None:
    """Two lists have the same key only if they are equal, wherever their texts are split."""
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_key_of_files_follows_content_name_and_mode(tmp_path: Path) -> None:
    """A changed byte, another name or an executable bit changes the key; another folder does not."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, twin = tmp_path / "a" / "f", tmp_path / "b" / "f"
    first.write_text("text")
    twin.write_text("text")
    key = key_of_files([first], tmp_path / "a")
    assert key_of_files([twin], tmp_path / "b") == key
    twin.chmod(0o755)
    assert key_of_files([twin], tmp_path / "b") != key
    first.write_text("other")
    assert key_of_files([first], tmp_path / "a") != key


def test_files_below_leaves_out_byte_code_and_hidden_files(tmp_path: Path) -> None:
    """Files that Python and editors create in a checkout don't change the image."""
    for name in ("kept.py", "sub/kept.txt", "__pycache__/x.py", "stale.pyc", ".hidden", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [file.relative_to(tmp_path).as_posix() for file in files_below(tmp_path)] == ["kept.py", "sub/kept.txt"]


def test_a_new_folder_is_removed_when_its_work_fails(tmp_path: Path) -> None:
    """Interrupted work leaves no incomplete folder behind."""
    places = Places(tmp_path)
    with pytest.raises(ZeroDivisionError), new_folder(places, "thing") as folder:
        (folder / "half").write_text(str(1 // 0))
    assert list(places.work.iterdir()) == []


def test_two_cache_folders_have_engines_of_their_own(tmp_path: Path) -> None:
    """The sockets and pid files of two cache folders are never the same."""
    assert Places(tmp_path / "a").run != Places(tmp_path / "b").run


def test_modules_pin_the_version_that_the_image_is_named_after() -> None:
    """The Kubernetes in go.mod is the version that the harness requests from kubeadm and reports to kind."""
    text = (programs.TOOLS / "kubernetes" / "go.mod").read_text()
    assert f"k8s.io/kubernetes {programs.KUBERNETES_VERSION}" in text
    assert nodeimage.PULLED.endswith(programs.KUBERNETES_VERSION)


def test_every_build_has_a_key_of_its_own() -> None:
    """No two builds share a folder of the cache, even if they share a module."""
    builds = (*nodeimage.BUILDS, programs.KUBECTL, programs.KIND, programs.HELM, programs.KWOK, programs.VERSITYGW)
    assert len({build.key() for build in builds}) == len(builds)
