"""Differences between the packages of two runs."""

from __future__ import annotations

from k8sflow.environments.comparison import PYTHON, Difference, differences
from k8sflow.environments.lock import Lock


def lock(packages: dict[str, str], python: str = "3.11", sha256: str = "aa", end: str = "") -> Lock:
    text = "".join(
        f'[[packages]]\nname = "{name}"\nversion = "{version}"\n'
        f'wheels = [{{url = "https://i/{name}-{version}-py3-none-any.whl", hashes = {{sha256 = "{sha256}"}}}}]\n'
        for name, version in packages.items()
    )
    return Lock((), python, "linux", text + end)


def folder(end: str) -> Lock:
    return Lock((), "3.11", "linux", f'[[packages]]\nname = "own"\ndirectory = {{path = "/own"}}\n# folders: {end}\n')


def test_packages_are_added_removed_and_changed() -> None:
    found = differences({"a": lock({"x": "1", "y": "1"})}, {"a": lock({"x": "2", "z": "1"})})
    assert [(each.name, each.change) for each in found] == [("x", "changed"), ("y", "removed"), ("z", "added")]


def test_the_same_packages_do_not_differ() -> None:
    assert differences({"a": lock({"x": "1"})}, {"a": lock({"x": "1"})}) == []


def test_a_step_of_one_run_alone_has_everything_added() -> None:
    found = differences({}, {"a": lock({"x": "1"})})
    assert found[0] == Difference("a", PYTHON, None, "3.11")
    assert found[-1] == Difference("a", "x", None, "1")


def test_another_python_and_another_file_of_the_same_version_are_named() -> None:
    found = differences({"a": lock({"x": "1"})}, {"a": lock({"x": "1"}, python="3.12", sha256="bb")})
    assert found == [Difference("a", PYTHON, "3.11", "3.12"), Difference("a", "x", "1", "1, other files")]


def test_a_changed_folder_is_a_change_of_its_package() -> None:
    assert differences({"a": folder("1")}, {"a": folder("1")}) == []
    (found,) = differences({"a": folder("1")}, {"a": folder("2")})
    assert (found.name, found.after) == ("own", "(from a folder), other files")
