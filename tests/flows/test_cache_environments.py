"""``@cache`` of steps with packages of their own: the lock is a part of the key, and the driver's packages are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.test_cache import CACHED, Runs
from tests.support import write_flow
from tests.wheels import make_wheel, uv_settings

SHADE = "VERSION = {!r}\n\nclass Color:\n    name = 'red'\n"
SOURCE = """
import os
def mark():
    with open(os.environ["RAN"], "a") as file:
        file.write(f"{current.step_name}/{current.task_id}\\n")

class F(FlowSpec):
    @cache
    @pypi(packages={"shade": ">=1"})
    @step
    def start(self):
        import shade
        mark()
        self.version = shade.VERSION
        self.color = shade.Color()
        self.next(self.work)
    @cache
    @pypi(packages={"shade": ">=1"})
    @step
    def work(self):
        mark()
        self.name = f"{self.color.name} {self.version}"
        self.next(self.end)
    @step
    def end(self):
        print("made", self.name)
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "shade", "1.0", {"shade.py": SHADE.format("1.0")})
    return folder


@pytest.fixture
def settings(wheels: Path, tmp_path: Path) -> dict[str, str]:
    return uv_settings(wheels, tmp_path / "cache")


def test_the_lock_of_a_step_is_a_part_of_its_key(tmp_path: Path, wheels: Path, settings: dict[str, str]) -> None:
    """A result is taken where the packages are the same, also if an input is an object of one; a new lock is a miss."""
    runs = Runs(tmp_path, "")
    write_flow(runs.folder, SOURCE, head=CACHED.replace("step\n", "pypi, step\n"))
    assert runs(**settings) == ["start/0", "work/0"]
    make_wheel(wheels, "shade", "2.0", {"shade.py": SHADE.format("2.0")})
    assert runs(**settings) == []
    assert "made red 1.0" in runs.output
    assert runs("--refresh-environments", **settings) == ["start/0", "work/0"]
    assert "made red 2.0" in runs.output
    assert runs(**settings) == []
    assert "made red 2.0" in runs.output
    runs("why", "start", command="cache", **settings)
    assert "changed   packages of @pypi" in runs.output.partition("from the current code")[0]
    assert "It doesn't differ from the current code" in runs.output
    runs.edit("flow.py", '">=1"', '"1.0"')
    runs("why", "start", command="cache", **settings)
    assert "changed   packages of @pypi" in runs.output.partition("from the current code")[2]
    assert runs(**settings) == []  # the packages, and not how they were asked for, are what counts
    assert "made red 1.0" in runs.output


def test_a_step_without_its_packages_takes_no_result_of_one_with_them(tmp_path: Path, settings: dict[str, str]) -> None:
    """``--environment=local`` runs it with the packages of the driver."""
    source = (
        SOURCE.replace("        import shade\n", "").replace("shade.VERSION", "'any'").replace("shade.Color()", "None")
    )
    runs = Runs(tmp_path, "")
    write_flow(runs.folder, source.replace("{self.color.name}", ""), head=CACHED.replace("step\n", "pypi, step\n"))
    assert runs(**settings) == ["start/0", "work/0"]
    assert runs("run", command="--environment=local", **settings) == ["start/0", "work/0"]
    assert runs(**settings) == []


def test_a_change_of_an_editable_package_is_a_miss(tmp_path: Path, wheels: Path, settings: dict[str, str]) -> None:
    """Its files are used where they are, so the lock alone doesn't say which code runs."""
    own = tmp_path / "own"
    write_editable(own, "one", "shade<2")
    make_wheel(wheels, "shade", "0.5", {"shade.py": SHADE.format("0.5")})
    runs = Runs(tmp_path, "")
    source = SOURCE.replace('packages={"shade": ">=1"}', 'requirements="requirements.txt"')
    source = source.replace("shade.VERSION", "f'{shade.VERSION} {__import__(\"own\").NAME}'")
    write_flow(runs.folder, source, head=CACHED.replace("step\n", "pypi, step\n"))
    (runs.folder / "requirements.txt").write_text("-e ../own\n")
    assert runs(**settings) == ["start/0", "work/0"]
    assert "made red 1.0 one" in runs.output
    assert runs(**settings) == []
    write_editable(own, "two", "shade<2")
    runs("why", "start", command="cache", **settings)
    assert f"changed   package folder {own}" in runs.output.partition("from the current code")[2]
    assert runs(**settings) == ["start/0", "work/0"]
    assert "made red 1.0 two" in runs.output
    write_editable(own, "two", "shade<1.0")
    assert runs(**settings) == ["start/0", "work/0"]
    assert "made red 0.5 two" in runs.output


def write_editable(folder: Path, name: str, needs: str) -> None:
    """Write a package that builds itself without any other one."""
    (folder / "source").mkdir(parents=True, exist_ok=True)
    (folder / "source/own.py").write_text(f"NAME = {name!r}\n")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "own"\nversion = "1"\ndependencies = ["{needs}"]\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    metadata = f"Metadata-Version: 2.1\\nName: own\\nVersion: 1\\nRequires-Dist: {needs}\\n"
    (folder / "backend.py").write_text(
        "import os, zipfile\n"
        "def build_editable(folder, settings=None, metadata=None):\n"
        "    with zipfile.ZipFile(os.path.join(folder, 'own-1-py3-none-any.whl'), 'w') as wheel:\n"
        "        wheel.writestr('own.pth', os.path.abspath('source'))\n"
        f"        wheel.writestr('own-1.dist-info/METADATA', '{metadata}')\n"
        "        wheel.writestr('own-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n'\n"
        "                       'Tag: py3-none-any\\n')\n"
        "        wheel.writestr('own-1.dist-info/RECORD', '')\n"
        "    return 'own-1-py3-none-any.whl'\n"
        "build_wheel = build_editable\n"
    )
