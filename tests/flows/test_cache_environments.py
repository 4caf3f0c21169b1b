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
