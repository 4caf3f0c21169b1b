"""Serializers of packages, which are really installed: docs/serializers.md has the package."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.errors import ArtifactError
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit
from k8sflow.storage.serializers import forget_installed, serializer_for

PAGE = (Path(__file__).parents[3] / "docs/serializers.md").read_text()
MODULE = re.findall(r"```python\n# grids.py\n(.*?)```", PAGE, re.DOTALL)[0]
NAME, POINT = re.findall(r'"(grids\.Grid)" = "(.*)"', PAGE)[0]
Install = Callable[..., Path]


def _wheel(folder: Path, package: str, version: str, modules: dict[str, str], points: str) -> Path:
    """A wheel, as a build backend makes it (https://packaging.python.org/specifications/binary-distribution-format)."""
    path = folder / f"{package}-{version}-py3-none-any.whl"
    about = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in modules.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/entry_points.txt", f"[k8sflow.serializers]\n{points}\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs the page's package into a folder of its own, which is on the path then."""

    def into(
        folder: str = "site",
        *,
        package: str = "grids",
        version: str = "1.0",
        module: str = MODULE,
        by_pip: bool = False,
    ) -> Path:
        wheels = tmp_path / f"wheels-{folder}"
        wheels.mkdir()
        wheel = _wheel(wheels, package, version, {"grids.py": module}, f"{NAME} = {POINT}")
        if by_pip:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
            subprocess.run([*pip, "--target", str(tmp_path / folder), str(wheel)], check=True, capture_output=True)
        else:  # which takes a second; for a wheel of pure Python, pip does no more
            zipfile.ZipFile(wheel).extractall(tmp_path / folder)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        _forget()
        return tmp_path / folder

    def _forget() -> None:
        sys.modules.pop("grids", None)
        forget_installed()

    yield into
    monkeypatch.undo()
    _forget()


def _uninstall(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    sys.modules.pop("grids", None)
    forget_installed()


@pytest.fixture
def saved(folder_store: FolderStore) -> ArtifactStore:
    return ArtifactStore(folder_store, "F")


def _grid(*arguments: Any) -> Any:
    import grids  # type: ignore[import-not-found]

    return grids.Grid(*arguments)


def test_a_value_at_any_depth_is_stored_by_its_package(install: Install, saved: ArtifactStore) -> None:
    install()
    value = {"maps": [_grid(3, b"abc" * 100_000), _grid(1, b"x")], "other": 1}

    ref = saved.save(value, "a")
    back = saved.load(ref, "a")

    assert [(grid.width, bytes(grid.cells)) for grid in back["maps"]] == [(3, b"abc" * 100_000), (1, b"x")]
    assert ref.serializers == ("grids==1.0",)
    assert saved.save(back, "a", ref) is ref


def test_a_lambda_may_be_beside_it(install: Install, saved: ArtifactStore) -> None:
    """Then cloudpickle is used."""
    install()
    back = saved.load(saved.save([_grid(3, b"abc"), lambda: 5], "a"), "a")

    assert (bytes(back[0].cells), back[1]()) == (b"abc", 5)


def test_the_memory_is_neither_copied_nor_read_at_once(install: Install, saved: ArtifactStore) -> None:
    install()
    back = saved.load(saved.save(_grid(3, bytearray(os.urandom(3 << 20))), "a"), "a")

    assert type(back.cells.obj).__name__ == "mmap"
    back.cells[0] = 5  # a private mapping


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(grids=st.lists(st.tuples(st.integers(), st.binary(max_size=3000)), max_size=5))
def test_any_grids_come_back(install_once: None, saved: ArtifactStore, grids: list[tuple[int, bytes]]) -> None:
    back = saved.load(saved.save([_grid(*each) for each in grids], "a"), "a")

    assert [(grid.width, bytes(grid.cells)) for grid in back] == grids


@pytest.fixture
def install_once(install: Install) -> None:
    install()


def test_the_commit_names_the_package(install: Install, saved: ArtifactStore) -> None:
    install(version="1.2")
    ref = saved.save(_grid(3, b"abc"), "a")
    document = Commit(0, (), {"a": ref, "b": saved.save(1, "b")}).to_document()

    assert document["artifacts"]["a"]["encoding"] == "pickle5;serializers=grids==1.2"
    assert "serializers" not in document["artifacts"]["b"]
    assert ArtifactRef.from_document(document["artifacts"]["a"]) == ref


def test_a_missing_package_is_named(install: Install, saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install()
    ref = saved.save([_grid(3, b"abc")], "a")
    _uninstall(folder, monkeypatch)

    with pytest.raises(
        ArtifactError, match=r"'a' \(a builtins.list\) can't be loaded.*grids.Grid.*grids==1.0"
    ) as error:
        saved.load(ref, "a")
    assert error.value.advice == "Install it: pip install grids==1.0"


def test_a_package_installed_meanwhile_is_found(install: Install, saved: ArtifactStore) -> None:
    install()
    ref = saved.save(_grid(3, b"abc"), "a")
    forget_installed()

    assert saved.load(ref, "a").width == 3


def test_a_package_in_an_archive_is_found(
    tmp_path: Path, saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch, install: Install
) -> None:
    wheel = _wheel(tmp_path, "grids", "1.0", {"grids.py": MODULE}, f"{NAME} = {POINT}")
    monkeypatch.syspath_prepend(str(wheel))
    monkeypatch.syspath_prepend(tmp_path)  # a mistake of many scripts, which Python ignores
    forget_installed()

    ref = saved.save(_grid(3, b"abc"), "a")
    assert (ref.serializers, saved.load(ref, "a").width) == (("grids==1.0",), 3)


def test_without_serializers_the_metadata_of_packages_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a twentieth of a second, and each task would need it."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("it was loaded"))
    forget_installed()

    assert serializer_for(dict) is None


def test_another_package_of_the_type_is_not_used(
    install: Install, saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install()
    ref = saved.save(_grid(3, b"abc"), "a")
    _uninstall(folder, monkeypatch)
    install("second", package="other_grids")

    with pytest.raises(ArtifactError, match=r"not installed here \(only other.grids==1.0"):
        saved.load(ref, "a")


def test_a_newer_format_is_refused_and_an_older_one_is_not(
    install: Install, saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install(module=MODULE.replace("version = 1", "version = 2"), version="2.0")
    ref = saved.save(_grid(3, b"abc"), "a")
    _uninstall(folder, monkeypatch)
    old = install("old")
    with pytest.raises(
        ArtifactError, match=r"in the format 2 of the package grids==2.0; grids==1.0.* up to 1"
    ) as error:
        saved.load(ref, "a")
    assert error.value.advice == "Upgrade it: pip install 'grids>=2.0'"
    older = saved.save(_grid(4, b"abcd"), "b")
    _uninstall(old, monkeypatch)
    install("new", module=MODULE.replace("version = 1", "version = 3"), version="3.0")

    assert (saved.load(ref, "a").width, saved.load(older, "b").width) == (3, 4)


def test_two_packages_of_a_type_are_an_error(install: Install, saved: ArtifactStore) -> None:
    install()
    install("second", package="other_grids")

    with pytest.raises(ArtifactError, match=r"grids==1.0 and other.grids==1.0 both have a serializer of grids.Grid"):
        saved.save(_grid(3, b"abc"), "a")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "return Grid(desc",
            "return dict(desc",
            "can't be stored: the serializer of grids.Grid in the package grids==1.0 failed to read",
        ),
        ("return Grid(description", "return (description", "returned a builtins.tuple"),
        ('description["width"]', 'description["height"]', "failed to read what grids==1.0 wrote: KeyError"),
        ("[grid.cells]", "[grid.cells[::2]]", "failed: BufferError"),
        ("[grid.cells]", "grid.cell", "failed: AttributeError"),
        ("[grid.cells]", "None", "failed: TypeError"),
        ("version = 1", "version = '1'", "not a serializer"),
        ("def write", "def writes", "not a serializer"),
        ("class GridSerializer", "class Serializer", "can't be imported: AttributeError"),
    ],
)
def test_a_faulty_serializer_fails_the_step(
    install: Install, saved: ArtifactStore, old: str, new: str, message: str
) -> None:
    """It is never a wrong value in a later step."""
    assert old in MODULE
    install(module=MODULE.replace(old, new))

    with pytest.raises(ArtifactError, match=message):
        saved.save(_grid(3, b"abc"), "a")
    gc.collect()  # in some versions of Python, it crashes on what a naive use of PickleBuffer leaves behind


def test_a_serializer_may_leave_values_to_pickle(install: Install, saved: ArtifactStore) -> None:
    module = MODULE.replace('raise TypeError("its memory can\'t be pickled")', "return Grid, (self.width, b'pickled')")
    install(module=module.replace("    def write(self, grid):", "    def write(self, grid):\n        return None"))

    ref = saved.save([_grid(-1, b"abc")], "a")
    assert [bytes(grid.cells) for grid in saved.load(ref, "a")] == [b"pickled"]
    assert ref.serializers == ()


FLOW = """
from grids import Grid
from k8sflow import FlowSpec, step

class Cells(FlowSpec):
    @step
    def start(self):
        self.grid = Grid(2, b"abcd" * 10_000)
        self.next(self.end)

    @step
    def end(self):
        print("width", self.grid.width, len(self.grid.cells))

if __name__ == "__main__":
    Cells()
"""


def test_a_flow_stores_it_and_a_reader_without_the_package_hears_of_it(install: Install, tmp_path: Path) -> None:
    folder = install(by_pip=True)
    (tmp_path / "cells.py").write_text(FLOW)
    environment = {"PATH": "/usr/bin:/bin", "K8SFLOW_ROOT": str(tmp_path / "store"), "USER": "someone"}
    run = [sys.executable, "cells.py", "run", "--run-id", "first"]
    with_package = {**environment, "PYTHONPATH": str(folder)}
    done = subprocess.run(run, cwd=tmp_path, env=with_package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "width 2 40000" in done.stdout + done.stderr

    read = "from k8sflow import Run, namespace; namespace(None); print(Run('Cells/first')['start'].task.data.grid)"
    failed = subprocess.run(
        [sys.executable, "-c", read], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "pip install grids==1.0" in failed.stderr
