"""One source of the version: k8sflow/version.py."""

import shutil
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest

import k8sflow
from k8sflow.config import Settings
from tools import version

CHECKOUT = Path(__file__).parents[3]


def test_package_and_settings_take_the_version_from_the_source():
    """The metadata of an editable installation is that of its last `pip install`."""
    assert k8sflow.__version__ == version.current() == installed_version("k8sflow")
    assert Settings().kubernetes_runtime_image == f"k8sflow:{version.current()}"


@pytest.mark.parametrize("location", version.COPIES, ids=lambda location: f"{location[0]}-{location[1][:20]}")
def test_every_copy_agrees_with_the_source(location):
    """The chart, the rendered manifests and the pages can't read Python."""
    copies = version.found(location)
    assert copies
    assert set(copies) == {version.current()}


def test_the_version_is_written_nowhere_else():
    """A new copy belongs to COPIES of tools/version.py, or is read from the source."""
    elsewhere = (":!*go.sum", ":!*go.mod", ":!requirements.lock", ":!CHANGELOG.md")
    command = ["git", "grep", "--untracked", "-lF", version.current(), "--", *elsewhere]
    named = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(named) == {name for name, _ in (version.SOURCE, *version.COPIES)}


def test_setting_the_version_changes_source_and_copies(tmp_path: Path):
    """And an invalid one is refused."""
    for name in {"tools/version.py", version.SOURCE[0], *(name for name, _ in version.COPIES)}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.version", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("9.8.7").returncode == 0
    assert run().stdout == "9.8.7\n"
    for location in (version.SOURCE, *version.COPIES):
        assert set(version.found(location, tmp_path)) == {"9.8.7"}
    assert run("latest").returncode == 2
