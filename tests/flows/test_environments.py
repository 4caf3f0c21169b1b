"""Steps with packages of their own, from a folder of wheels in place of an index."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from k8sflow.environments import local
from k8sflow.environments.lock import Lock
from tests.support import write_flow
from tests.wheels import make_wheel, shades

HEAD = "from k8sflow import FlowSpec, current, pypi, pypi_base, step\n"
TWO = """
    class F(FlowSpec):
        @pypi(packages={"shade": "1.0"})
        @step
        def start(self):
            import shade
            self.first = shade.VERSION
            self.next(self.middle)
        @pypi(packages={"shade": ">=2"})
        @step
        def middle(self):
            import shade, sys
            print("versions", self.first, shade.VERSION, sys.prefix)
            self.next(self.end)
        @step
        def end(self):
            import importlib.util
            print("in the driver's", importlib.util.find_spec("shade"))
"""
ONE = """
    class F(FlowSpec):
        @pypi(packages=PACKAGES)
        @step
        def start(self):
            import shade
            print("version", shade.VERSION)
            self.next(self.end)
        @step
        def end(self):
            pass
"""
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    shades(folder)
    return folder


def one(tmp_path: Path, packages: dict[str, str]) -> Path:
    return write_flow(tmp_path, ONE.replace("PACKAGES", repr(packages)), head=HEAD)


def locks_of(tmp_path: Path, run: str) -> dict[str, Any]:
    record = json.loads((tmp_path / f".k8sflow/F/runs/{run}/run.json").read_text())
    found: dict[str, Any] = record["environments"]
    return found


def test_two_steps_have_two_versions_of_a_package_and_artifacts_pass(tmp_path: Path, command: Run) -> None:
    flow = write_flow(tmp_path, TWO, head=HEAD)
    done = command(flow, "--environment=pypi", "run", "--run-id", "r1")
    assert done.returncode == 0, done.stderr
    assert "versions 1.0 2.0" in done.stdout
    assert "in the driver's None" in done.stdout
    locks = locks_of(tmp_path, "r1")
    assert sorted(locks["steps"]) == ["middle", "start"]
    assert all("sha256" in lock["lock"] for lock in locks["locks"].values())


def test_the_lock_holds_for_runs_and_resumes_until_it_is_refreshed(
    tmp_path: Path, command: Run, wheels: Path, cache: Path
) -> None:
    flow = one(tmp_path, {"shade": ">=1"})
    assert "version 2.0" in command(flow, "run", "--run-id", "r1").stdout
    make_wheel(wheels, "shade", "3.0", {"shade.py": "VERSION = '3.0'\n"})
    assert "version 2.0" in command(flow, "run", "--run-id", "r2").stdout
    shutil.rmtree(cache)  # as for a colleague: the lock is in the run's record
    done = command(flow, "resume", "start", "--origin-run-id", "r1", "--run-id", "r3")
    assert "version 2.0" in done.stdout, done.stderr
    done = command(flow, "run", "--refresh-environments", "--run-id", "r4")
    assert "version 3.0" in done.stdout, done.stderr
    assert locks_of(tmp_path, "r3") == locks_of(tmp_path, "r1")


def test_files_that_limit_versions_hold_as_they_are_now(tmp_path: Path, command: Run) -> None:
    """Beside k8sflow's own constraints, uv would ignore the variable; and it refuses it where it installs a lock."""
    flow, limits = one(tmp_path, {"shade": ">=1"}), tmp_path / "limits.txt"
    for limit, version in (("shade<2", "1.0"), ("shade<3", "2.0")):
        limits.write_text(limit)
        done = command(flow, "run", UV_CONSTRAINT="limits.txt")
        assert f"version {version}" in done.stdout, done.stderr


def test_environment_local_runs_the_steps_in_the_drivers_python(tmp_path: Path, command: Run) -> None:
    done = command(one(tmp_path, {"shade": ""}), "--environment=local", "run")
    assert done.returncode == 1
    assert "No module named 'shade'" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({"shad": ""}, "a package does not exist"),
        ({"shade": "2.0", "paint": ""}, "all versions of paint depend on shade<2"),
        ({"winonly": ""}, "no wheel for this platform"),
        ({"click": "7.0"}, "k8sflow itself, which runs in the step too, needs click>=8.1"),
    ],
)
def test_what_can_not_be_resolved_is_an_error_before_the_run(
    tmp_path: Path, command: Run, packages: dict[str, str], message: str
) -> None:
    done = command(one(tmp_path, packages), "run")
    assert done.returncode == 1
    assert message in done.stderr
    assert "the packages of step start" in done.stderr
    assert not (tmp_path / ".k8sflow").exists()


def test_an_index_that_can_not_be_reached_is_named(tmp_path: Path, command: Run) -> None:
    done = command(
        one(tmp_path, {"shade": ""}),
        "run",
        UV_CONFIG_FILE=os.devnull,
        UV_DEFAULT_INDEX="http://127.0.0.1:9/simple",
        UV_HTTP_RETRIES="0",
    )
    assert done.returncode == 1
    assert "the index can't be reached" in done.stderr
    assert "127.0.0.1:9" in done.stderr


def test_a_wheel_that_is_not_the_locked_one_is_refused(tmp_path: Path, command: Run, wheels: Path, cache: Path) -> None:
    flow = one(tmp_path, {"shade": "1.0"})
    assert command(flow, "run", "--run-id", "r1").returncode == 0
    make_wheel(wheels, "shade", "1.0", {"shade.py": "VERSION = 'forged'\n"})
    shutil.rmtree(cache)
    done = command(flow, "resume", "start", "--origin-run-id", "r1")
    assert done.returncode == 1
    assert "a file is not the one that was locked" in done.stderr


def test_a_removed_environment_is_created_again(tmp_path: Path, command: Run, cache: Path) -> None:
    flow = one(tmp_path, {"shade": "1.0"})
    assert command(flow, "run").returncode == 0
    shutil.rmtree(cache / "k8sflow/environments")
    done = command(flow, "run")
    assert "version 1.0" in done.stdout, done.stderr


def test_a_cache_that_is_removed_during_a_run_is_created_again(tmp_path: Path, command: Run) -> None:
    remove = "import os, shutil; shutil.rmtree(os.environ['XDG_CACHE_HOME'] + '/k8sflow')"
    flow = write_flow(tmp_path, TWO.replace("import shade\n", f"import shade; {remove}\n", 1), head=HEAD)
    done = command(flow, "run")
    assert "versions 1.0 2.0" in done.stdout, done.stderr


def test_a_missing_python_is_an_error_before_the_run(tmp_path: Path, command: Run) -> None:
    source = ONE.replace("packages=PACKAGES", 'python="3.99", packages={"shade": ""}')
    done = command(write_flow(tmp_path, source, head=HEAD), "run", UV_PYTHON_DOWNLOADS="never")
    assert done.returncode == 1
    assert "there is no such Python" in done.stderr
    assert not (tmp_path / ".k8sflow").exists()


def test_an_import_at_the_top_names_the_step_that_has_the_package(tmp_path: Path, command: Run) -> None:
    flow = one(tmp_path, {"shade": "1.0"})
    flow.write_text(flow.read_text().replace(HEAD, f"{HEAD}import shade\n"))
    done = command(flow, "run")
    assert done.returncode == 1
    assert "flow.py:2 imports shade at the top" in done.stderr
    assert "The environment of step start has it" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_at_the_top_that_a_steps_environment_lacks_says_so(tmp_path: Path, command: Run) -> None:
    flow = one(tmp_path, {"shade": "1.0"})
    flow.write_text(flow.read_text().replace(HEAD, f"{HEAD}import pytest\n"))
    done = command(flow, "run", PYTHONPATH=str(Path(__file__).parents[2]))
    assert done.returncode == 1
    assert "The environment of step start has no pytest" in done.stdout


def test_an_artifact_of_a_class_that_another_environment_lacks_names_both_versions(
    tmp_path: Path, command: Run
) -> None:
    source = TWO.replace("self.first = shade.VERSION", "self.first = shade.Color1()")
    done = command(write_flow(tmp_path, source, head=HEAD), "run")
    assert done.returncode == 1
    assert "the artifact 'first' (a shade.Color1) can't be loaded" in done.stdout
    assert "The environment of step middle has shade 2.0; that of step start has shade 1.0." in done.stdout


def test_a_step_without_a_package_that_another_one_has_says_which(tmp_path: Path, command: Run) -> None:
    done = command(write_flow(tmp_path, TWO.replace("import importlib.util", "import shade"), head=HEAD), "run")
    assert done.returncode == 1
    assert "Step end has no environment of its own; that of step start has shade 1.0" in done.stdout


def test_a_packages_own_version_wins_over_that_of_k8sflow(tmp_path: Path, command: Run, wheels: Path) -> None:
    make_wheel(wheels, "threadpoolctl", "99.0", {"threadpoolctl.py": "VERSION = 'own'\n"})
    source = ONE.replace("PACKAGES", "{'threadpoolctl': ''}").replace("shade", "threadpoolctl")
    done = command(write_flow(tmp_path, source, head=HEAD), "run")
    assert "version own" in done.stdout, done.stderr


def test_two_processes_that_need_an_environment_make_it_once(
    tmp_path: Path, wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    wheel = next(wheels.glob("shade-1.0*"))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    archive = f'archive = {{ path = "{wheel}", hashes = {{ sha256 = "{sha256}" }} }}'
    text = f'lock-version = "1.0"\ncreated-by = "a test"\n[[packages]]\nname = "shade"\nversion = "1.0"\n{archive}\n'
    lock = Lock(("shade",), ".".join(map(str, sys.version_info[:2])), "here", text)
    made: list[int] = []
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(local.ensure("it", lock, lambda: made.append(1))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(found)) == 1
    assert len(found) == 3


def test_what_a_killed_process_has_left_is_removed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    lock = Lock((), ".".join(map(str, sys.version_info[:2])), "here", 'lock-version = "1.0"\n')
    folder = local.python(lock).parents[1]
    remains = folder.with_name(f"{folder.name}.1.tmp")
    (remains / "bin").mkdir(parents=True)
    assert local.ensure("it", lock).exists()
    assert not remains.exists()


def test_a_wheel_is_named_by_a_path_from_the_folder_of_the_flow(tmp_path: Path, command: Run) -> None:
    wheel = make_wheel(tmp_path / "own", "shade", "7.0", {"shade.py": "VERSION = '7.0'\n"})
    done = command(one(tmp_path, {"shade": f"./own/{wheel.name}"}), "run")
    assert "version 7.0" in done.stdout, done.stderr


def test_pythonpath_does_not_replace_a_package_of_the_step(tmp_path: Path, command: Run) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others/shade.py").write_text("VERSION = 'from PYTHONPATH'\n")
    done = command(one(tmp_path, {"shade": "1.0"}), "run", PYTHONPATH=str(tmp_path / "others"))
    assert "version 1.0" in done.stdout, done.stderr


def test_spin_has_the_packages_that_the_step_asks_for_now(tmp_path: Path, command: Run) -> None:
    assert command(one(tmp_path, {"shade": "1.0"}), "run").returncode == 0
    flow = one(tmp_path, {"shade": "2.0"})
    done = command(flow, "spin", "start")
    assert "version 2.0" in done.stdout, done.stderr
    done = command(flow, "--environment=local", "spin", "start")
    assert "No module named 'shade'" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({"shade": 2.10}, "a number would be 2.1"),
        ({"shade": "1.0", "Shade": "2.0"}, "'Shade' is named twice"),
        ({"shade": ">=1\n--no-deps"}, "has more than one line"),
    ],
)
def test_versions_that_might_be_misread_are_refused(
    tmp_path: Path, command: Run, packages: dict[str, Any], message: str
) -> None:
    done = command(one(tmp_path, packages), "run")
    assert done.returncode == 1
    assert message in done.stderr


BACKEND = """
import sys, zipfile
from pathlib import Path


def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "own-1.0-py3-none-any.whl"
    files = {
        "own.py": Path("own.py").read_text(),
        "own-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: own\\nVersion: 1.0\\n",
        "own-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "own-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(Path(folder, name), "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return name
"""
OWN = """
    class F(FlowSpec):
        @pypi(packages={"own": "./own"})
        @step
        def start(self):
            import own
            print("value", own.VALUE)
            self.next(self.end)
        @step
        def end(self): ...
"""


def test_a_package_from_a_folder_is_built_again_after_a_change(tmp_path: Path, command: Run) -> None:
    """Also where only a module changes, which uv's own cache doesn't notice."""
    flow = write_flow(tmp_path, OWN, head=HEAD)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/backend.py").write_text(BACKEND)
    (tmp_path / "own/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    for value in (1, 22):
        (tmp_path / "own/own.py").write_text(f"VALUE = {value}\n")
        done = command(flow, "run")
        assert done.returncode == 0, done.stderr
        assert f"value {value}\n" in done.stdout


def test_each_step_keeps_what_it_asked_for(tmp_path: Path, command: Run) -> None:
    """Though two requests have the same packages, a resumed run knows both again, and needs no index."""
    source = """
    class F(FlowSpec):
        @pypi(packages={"shade": "2.0"})
        @step
        def start(self): self.next(self.end)
        @pypi(packages={"shade": ">=2"})
        @step
        def end(self): raise ValueError("as asked")
    """
    flow = write_flow(tmp_path, source, head=HEAD)
    assert command(flow, "run", "--run-id", "r1").returncode == 1
    found = locks_of(tmp_path, "r1")
    asked = {step: found["locks"][name]["requirements"] for step, name in found["steps"].items()}
    assert asked == {"start": ["shade==2.0"], "end": ["shade>=2"]}
