"""Packages of steps from files: requirements, projects, locks, and metadata of the flow's file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from k8sflow.environments import uv
from tests.support import write_flow
from tests.wheels import make_wheel, shades, uv_settings

HEAD = "from k8sflow import FlowSpec, conda, conda_base, pypi, pypi_base, step\n"
BASE = """
    @pypi_base(OPTIONS)
    class F(FlowSpec):
        @step
        def start(self):
            import shade
            print("version", shade.VERSION)
            self.next(self.end)
        @pypi(disabled=True)
        @step
        def end(self): ...
"""
PROJECT = """\
[project]
name = "proj"
version = "1"
requires-python = ">=3.10"
dependencies = ["shade<2", "k8sflow"]

[project.optional-dependencies]
draw = ["paint"]

[dependency-groups]
extra = ["ink>=1"]
"""
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    shades(folder)
    make_wheel(folder, "ink", "1.0", {"ink.py": "VERSION = '1.0'\n"})
    make_wheel(folder, "k8sflow", "99.0", {"k8sflow/__init__.py": "raise ImportError('another k8sflow')\n"})
    return folder


def base_flow(tmp_path: Path, options: str, source: str = BASE) -> Path:
    return write_flow(tmp_path, source.replace("OPTIONS", options), head=HEAD)


def lock_of(tmp_path: Path, run: str) -> dict[str, Any]:
    record = json.loads((tmp_path / f".k8sflow/F/runs/{run}/run.json").read_text())
    (found,) = record["environments"]["locks"].values()
    assert isinstance(found, dict)
    return found


def refused(done: CompletedProcess[str], tmp_path: Path, *messages: str) -> None:
    """Check that a run ended before it existed, with these messages."""
    assert done.returncode == 1, done.stdout
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".k8sflow").exists()


def test_a_requirements_file_with_includes_constraints_markers_and_local_wheels(tmp_path: Path, command: Run) -> None:
    own = make_wheel(tmp_path / "own", "brush", "1.0", {"brush.py": ""})
    (tmp_path / "requirements.txt").write_text(
        f"# a comment\n-r more/inner.txt\n-c limits.txt\nshade >= 1  # any\n./own/{own.name}\n"
        'nothing ; python_version < "3"\nk8sflow[pypi]\n'
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more/inner.txt").write_text("ink>=1\n")
    (tmp_path / "limits.txt").write_text("shade<2\n")
    done = command(base_flow(tmp_path, 'requirements="requirements.txt"'), "run", "--run-id", "r1")
    assert "version 1.0" in done.stdout, done.stderr
    lock = lock_of(tmp_path, "r1")
    assert lock["requirements"] == ["requirements: requirements.txt"]
    assert all(f'name = "{name}"' in lock["lock"] for name in ("brush", "ink", "shade"))
    assert "k8sflow" not in lock["lock"].replace(str(tmp_path), "")


def test_a_changed_file_is_another_lock_and_a_resumed_run_keeps_the_old_one(tmp_path: Path, command: Run) -> None:
    flow = base_flow(tmp_path, 'requirements=["requirements.txt"]')
    (tmp_path / "requirements.txt").write_text("-r inner.txt\n")
    (tmp_path / "inner.txt").write_text("shade==1.0\n")
    assert "version 1.0" in command(flow, "run", "--run-id", "r1").stdout
    (tmp_path / "inner.txt").write_text("shade==2.0\n")
    assert "version 2.0" in command(flow, "run", "--run-id", "r2").stdout
    done = command(flow, "resume", "start", "--origin-run-id", "r1", "--run-id", "r3")
    assert "version 1.0" in done.stdout, done.stderr
    assert "though requirements.txt changed since" in done.stdout + done.stderr
    assert lock_of(tmp_path, "r3") == lock_of(tmp_path, "r1")
    done = command(flow, "resume", "start", "--origin-run-id", "r1", "--refresh-environments")
    assert "version 2.0" in done.stdout, done.stderr
    assert "version 2.0" in command(flow, "spin", "r1/start").stdout  # it tries what the step asks for now
    (tmp_path / "inner.txt").unlink()
    done = command(flow, "resume", "start", "--origin-run-id", "r1")
    assert "version 1.0" in done.stdout, done.stderr


def test_the_hashes_of_a_requirements_file_are_compared(tmp_path: Path, command: Run, wheels: Path) -> None:
    flow = base_flow(tmp_path, 'requirements="requirements.txt"')
    right = hashlib.sha256(next(wheels.glob("shade-1*")).read_bytes()).hexdigest()
    for sha256, code in (("0" * 64, 1), (right, 0)):
        (tmp_path / "requirements.txt").write_text(f"shade==1.0 \\\n    --hash=sha256:{sha256}\n")
        done = command(flow, "run")
        assert done.returncode == code, done.stderr
        if code:
            refused(done, tmp_path, "no file of shade 1.0 has a hash that requirements.txt:1 has", right)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "requirements.txt can't be read: No such file or directory"),
        ("ink\n-r nix.txt\n", "requirements.txt:2 names it) can't be read"),
        ("ink\n\nshade ==\n", "requirements.txt:3 is not valid"),
        ("ink\n--frob x\n", "requirements.txt:2 is not valid"),
        ("shad\n", "a package does not exist"),
        ("shade==2.0\npaint\n", "all versions of paint depend on shade<2"),
        ("winonly\n", "no wheel for this platform"),
        ("--require-hashes\nshade==1.0\n", "shade has no hash"),
        ("click==7.0\n", "k8sflow itself, which runs in the step too, needs click>=8.1"),
        (b"\xff\xfe\n", "it is not UTF-8"),
    ],
)
def test_a_requirements_file_that_can_not_be_used_is_an_error_before_the_run(
    tmp_path: Path, command: Run, lines: str | bytes | None, message: str
) -> None:
    if lines is not None:
        (tmp_path / "requirements.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    done = command(base_flow(tmp_path, 'requirements="requirements.txt"'), "run")
    refused(done, tmp_path, message, "the packages of step start")


def test_a_project_with_extras_and_the_groups_of_a_step(tmp_path: Path, command: Run) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj/pyproject.toml").write_text(PROJECT)
    source = BASE.replace("@pypi(disabled=True)", '@pypi(groups=["extra"])').replace(
        "end(self): ...", "end(self): import ink"
    )
    flow = base_flow(tmp_path, 'pyproject="proj/pyproject.toml", extras=["draw"]', source)
    done = command(flow, "run", "--run-id", "r1")
    assert "version 1.0" in done.stdout, done.stderr
    record = json.loads((tmp_path / ".k8sflow/F/runs/r1/run.json").read_text())["environments"]
    locks = {step: record["locks"][name] for step, name in record["steps"].items()}
    assert locks["end"]["requirements"] == ["pyproject: proj/pyproject.toml with extras draw and groups extra"]
    assert '"paint"' in locks["start"]["lock"]
    assert '"ink"' not in locks["start"]["lock"]
    assert '"ink"' in locks["end"]["lock"]


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ("", "[project\n", "pyproject.toml:1 is not TOML"),
        ("", '[project]\nname = "x"\nversion = "1"\ndependencies = ["shade <<1"]\n', "shade <<1"),
        (", groups=['nope']", PROJECT, "'nope'"),
        (", extras=['nope']", PROJECT, "nope"),
        (", python='3.9'", PROJECT, "pyproject.toml asks for Python >=3.10, and the step for 3.9"),
        ("", PROJECT.replace("dependencies = ", 'dynamic = ["dependencies"]\n#'), "has dynamic dependencies"),
        ("", '[tool.poetry]\nname = "x"\n', "has no table [project]"),
        ("", "project = [1]\n", "has a value where a table belongs"),
        ("", PROJECT.replace(">=3.10", ">=3.99"), "no version of Python fits pyproject.toml >=3.99"),
    ],
)
def test_a_project_that_can_not_be_used_is_an_error_before_the_run(
    tmp_path: Path, command: Run, options: str, text: str, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    refused(command(base_flow(tmp_path, f'pyproject="pyproject.toml"{options}'), "run"), tmp_path, message)


def test_groups_need_no_project(tmp_path: Path, command: Run) -> None:
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\na = ["shade<2"]\nb = [{include-group = "a"}]\n')
    done = command(
        base_flow(tmp_path, 'pyproject=pathlib.Path("pyproject.toml"), groups="b"', f"    import pathlib\n{BASE}"),
        "run",
    )
    assert "version 1.0" in done.stdout, done.stderr


class _Index(BaseHTTPRequestHandler):
    """An index with a password; the wheels are in the folder of the server."""

    def do_GET(self) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(b'me:secret').decode()}":
            self._answer(401, b"")
        elif self.path.startswith("/simple/shade"):
            links = [f'<a href="/{file.name}">{file.name}</a>' for file in folder.glob("shade-*")]
            self._answer(200, "".join(links).encode())
        elif (file := folder / self.path.strip("/")).is_file():
            self._answer(200, file.read_bytes())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is shown."""


@pytest.fixture
def index(wheels: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    server.folder = wheels  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_index_with_credentials_in_the_file(tmp_path: Path, command: Run, index: str) -> None:
    """They are used for the wheels too, and recorded nowhere."""
    flow = base_flow(tmp_path, 'requirements="requirements.txt"')
    settings = {"UV_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(tmp_path / "uv"), "UV_HTTP_RETRIES": "0"}
    (tmp_path / "requirements.txt").write_text(f"--index-url http://me:wrong@{index}\nshade==1.0\n")
    refused(command(flow, "run", **settings), tmp_path, "the index refuses the credentials")
    (tmp_path / "requirements.txt").write_text(f"--index-url http://me:secret@{index}\nshade==1.0\n")
    done = command(flow, "run", **settings)
    assert "version 1.0" in done.stdout, done.stderr
    kept = [*(tmp_path / ".k8sflow").rglob("*"), *(tmp_path / "cache").rglob("*.json")]
    assert not [file for file in kept if file.is_file() and b"secret" in file.read_bytes()]


METADATA = """\
# /// script
# requires-python = ">=3.10"
# dependencies = ["shade<2", "k8sflow"]
# ///
"""
PLAIN = BASE.replace("    @pypi_base(OPTIONS)\n", "")


def test_metadata_of_the_file_names_the_packages_of_every_step(tmp_path: Path, command: Run) -> None:
    flow = write_flow(tmp_path, PLAIN, head=METADATA + HEAD)
    assert "version 1.0" in command(flow, "run", "--run-id", "r1").stdout
    assert lock_of(tmp_path, "r1")["requirements"] == ["script: flow.py"]
    done = command(flow, "--environment=local", "run")
    assert "No module named 'shade'" in done.stdout + done.stderr


def test_metadata_has_the_settings_of_its_index(tmp_path: Path, command: Run, wheels: Path) -> None:
    settings = f"# [tool.uv]\n# no-index = true\n# find-links = [{str(wheels)!r}]\n# ///\n"
    flow = write_flow(tmp_path, PLAIN, head=METADATA.replace("# ///\n", settings) + HEAD)
    nowhere = tmp_path / "nothing.toml"
    nowhere.write_text("")
    done = command(flow, "run", UV_CONFIG_FILE=str(nowhere), UV_HTTP_RETRIES="0")
    assert "version 1.0" in done.stdout, done.stderr


def test_metadata_with_k8sflow_alone_is_not_an_environment(tmp_path: Path, command: Run) -> None:
    metadata = METADATA.replace('"shade<2", "k8sflow"', '"k8sflow[pypi]>=0.1"')
    done = command(
        write_flow(
            tmp_path,
            PLAIN.replace("import shade", "shade = FlowSpec").replace("shade.VERSION", "0"),
            head=metadata + HEAD,
        ),
        "run",
        "--run-id",
        "r1",
    )
    assert done.returncode == 0, done.stderr
    assert "environments" not in json.loads((tmp_path / ".k8sflow/F/runs/r1/run.json").read_text())


def test_decorators_add_to_the_metadata_or_turn_it_off(tmp_path: Path, command: Run) -> None:
    flow = write_flow(tmp_path, BASE.replace("OPTIONS", 'packages={"ink": ""}'), head=METADATA + HEAD)
    done = command(flow, "run", "--run-id", "r1")
    assert "version 1.0" in done.stdout, done.stderr
    assert lock_of(tmp_path, "r1")["requirements"] == ["ink", "script: flow.py"]
    flow = write_flow(tmp_path, BASE.replace("OPTIONS", "disabled=True"), head=METADATA + HEAD)
    assert "No module named 'shade'" in command(flow, "run").stdout


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"k8sflow"]', '"k8sflow"', "flow.py:3: the metadata of the file"),
        ("shade<2", "shade<<2", "flow.py:3 is not valid"),
        ("# ///\n", "\n", "flow.py:1: the metadata of the file (# /// script) can't be read: the block has no end"),
        ("# ///\n", "# ///\n" + METADATA, "there are two blocks"),
    ],
)
def test_metadata_that_can_not_be_read_is_an_error_before_the_run(
    tmp_path: Path, command: Run, before: str, after: str, message: str
) -> None:
    flow = write_flow(tmp_path, PLAIN, head=METADATA.replace(before, after) + HEAD)
    refused(command(flow, "run"), tmp_path, message)


def locked(tmp_path: Path, wheels: Path, cache: Path, text: str = PROJECT) -> Path:
    """Write a project and its uv.lock."""
    (tmp_path / "pyproject.toml").write_text(text)
    environment = {**uv_settings(wheels, cache), "PATH": "/usr/bin:/bin"}
    command = [uv.program(), "lock", "--quiet", f"--python={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    return tmp_path / "uv.lock"


def test_a_lock_is_used_exactly_and_asks_no_index(tmp_path: Path, command: Run, wheels: Path, cache: Path) -> None:
    locked(tmp_path, wheels, cache)
    make_wheel(wheels, "ink", "2.0", {"ink.py": "VERSION = '2.0'\n"})
    source = BASE.replace("@pypi(disabled=True)", '@pypi(groups=["extra"])').replace(
        "end(self): ...", "end(self):\n            import ink\n            print('ink', ink.VERSION)"
    )
    done = command(base_flow(tmp_path, 'lock="uv.lock"', source), "run", "--run-id", "r1")
    assert "version 1.0" in done.stdout, done.stderr
    assert "ink 1.0" in done.stdout
    record = (tmp_path / ".k8sflow/F/runs/r1/run.json").read_text()
    assert "k8sflow-99" not in record
    assert "sha256" in record


def test_a_lock_that_does_not_fit_its_project_is_an_error(
    tmp_path: Path, command: Run, wheels: Path, cache: Path
) -> None:
    locked(tmp_path, wheels, cache)
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("shade<2", "shade"))
    done = command(base_flow(tmp_path, 'lock="uv.lock"'), "run")
    refused(done, tmp_path, "uv.lock doesn't fit pyproject.toml, which has changed since", "Run `uv lock`")


def test_a_lock_with_another_file_than_the_index_is_an_error(
    tmp_path: Path, command: Run, wheels: Path, cache: Path
) -> None:
    file = locked(tmp_path, wheels, cache)
    settings = uv_settings(wheels, cache)
    flow = base_flow(tmp_path, 'lock="pylock.toml"')
    words = [uv.program(), "export", "--quiet", "--format=pylock.toml", "-o", "pylock.toml", "--no-emit-project"]
    subprocess.run(words, cwd=tmp_path, env={**settings, "PATH": "/usr/bin:/bin"}, check=True)
    assert file.exists()
    shutil.rmtree(cache)
    make_wheel(wheels, "shade", "1.0", {"shade.py": "VERSION = 'forged'\n"})
    done = command(flow, "run", UV_CACHE_DIR=str(tmp_path / "uv-cache"))
    refused(done, tmp_path, "a file is not the one that was locked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('lock="uv.lock"', "uv.lock can't be read: No such file"),
        ('lock="requirements.lock"', "is not a lock that k8sflow reads"),
        ('lock="uv.lock", packages={"shade": ""}', "lock has all packages of the step, so packages can't be added"),
        ('groups=["x"]', "name it by pyproject or lock"),
        ('packages={"shade": ""}, extras=["x"]', "name it by pyproject or lock"),
    ],
)
def test_a_lock_or_a_project_that_is_missing_is_an_error(
    tmp_path: Path, command: Run, options: str, message: str
) -> None:
    (tmp_path / "requirements.lock").write_text("shade==1.0\n")
    refused(command(base_flow(tmp_path, options), "run"), tmp_path, message)


CONDA = """
    @conda_base(libraries={"shade": "=1", "python": "3.11"})
    class F(FlowSpec):
        @step
        def start(self):
            import shade
            print("version", shade.VERSION)
            self.next(self.end)
        @conda(packages={"py-opencv": "1.0"})
        @step
        def end(self):
            import cv2
            print("cv2", cv2.VERSION)
"""


def test_packages_of_conda_come_from_pypi_which_is_said_once(tmp_path: Path, command: Run, wheels: Path) -> None:
    make_wheel(wheels, "opencv-python", "1.0", {"cv2.py": "VERSION = '1.0'\n"})
    version = ".".join(map(str, sys.version_info[:2]))
    done = command(write_flow(tmp_path, CONDA.replace("3.11", version), head=HEAD), "--environment=conda", "run")
    assert "version 1.0" in done.stdout, done.stderr
    assert "cv2 1.0" in done.stdout
    said = done.stdout + done.stderr
    assert said.count("The packages of @conda come from PyPI, where py-opencv is opencv-python.") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conda-forge::shade", "@conda_base names conda-forge::shade, which only a channel of conda has"),
        ("cudatoolkit", "remove it: PyPI's torch brings CUDA"),
        ("no-such-package", "a package does not exist"),
    ],
)
def test_a_package_that_only_a_channel_has_is_an_error_before_the_run(
    tmp_path: Path, command: Run, name: str, message: str
) -> None:
    done = command(write_flow(tmp_path, CONDA.replace('shade":', f'{name}":'), head=HEAD), "run")
    refused(done, tmp_path, message)
