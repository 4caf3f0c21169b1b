"""Packages that a pod installs from the bucket."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from k8sflow.environments.lock import Lock, StoredWheel
from k8sflow.errors import DependencyError, StorageError
from k8sflow.storage.artifacts import ArtifactStore, blob_key
from k8sflow.storage.folder import FolderStore
from k8sflow.task.host.installation import installed, unpack
from tests.unit.task.host.agent_runs import ended, prepare, start_agent
from tests.wheels import make_wheel

PYTHON = ".".join(map(str, sys.version_info[:2]))
FILES = {
    "shade.py": "VERSION = '1.0'\ndef main():\n    print('called')\n",
    "shade-1.0.data/purelib/shade_more.py": "",
    "shade-1.0.dist-info/entry_points.txt": "[console_scripts]\nshade = shade:main\n",
}


def stored(folder: Path, store: FolderStore) -> Lock:
    wheel = make_wheel(folder, "shade", "1.0", FILES)
    data = wheel.read_bytes()
    blob = hashlib.sha256(data).hexdigest()
    ArtifactStore(store, "F").save_blob(blob, [data])
    return Lock(("shade",), PYTHON, "linux", "", (StoredWheel("shade", "1.0", wheel.name, blob),))


def test_the_step_runs_in_an_environment_with_its_packages_and_nothing_else_of_the_image(tmp_path: Path) -> None:
    body = (
        "import shade, shade_more, importlib.util, subprocess\n"
        "print(shade.VERSION, sys.prefix, importlib.util.find_spec('numpy'), flush=True)\n"
        "subprocess.run([os.path.join(sys.prefix, 'bin', 'shade')], check=True)"
    )
    runner, command = prepare(tmp_path, body)
    record = runner.run_store.read()
    assert isinstance(runner.store, FolderStore)
    changed = replace(record, environments={"start": stored(tmp_path / "wheels", runner.store)})
    runner.store.delete([f"F/runs/{record.run}/run.json"])
    runner.run_store.create(changed)
    code, result, output = ended(tmp_path, start_agent(tmp_path, [*command, "--environment"]))
    assert code == 0, (result, output)
    assert f"1.0 {tmp_path / 'work/environment'} None".encode() in output["stdout"]
    assert b"called" in output["stdout"]
    assert b"[k8sflow] installed 1 package in" in output["stderr"]


def test_an_image_that_has_the_packages_is_used_as_it_is(tmp_path: Path) -> None:
    from importlib.metadata import version

    lock = Lock((), PYTHON, "linux", "", (StoredWheel("click", version("click"), "click.whl", "0" * 64),))
    assert installed("start", lock, FolderStore(str(tmp_path)), "F", print) == Path(sys.executable)


def test_an_image_with_another_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"locked for Python 3\.99, and the image has Python 3"):
        installed("start", Lock((), "3.99", "linux", ""), FolderStore(str(tmp_path)), "F", print)


def test_a_damaged_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(str(tmp_path / "store"))
    lock = stored(tmp_path / "wheels", store)
    store.put(blob_key("F", lock.files[0].blob), [b"damaged"])
    with pytest.raises(StorageError, match="is damaged"):
        installed("start", lock, store, "F", print)


def test_the_programs_of_an_environment_run_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(str(tmp_path / "store"))
    python = installed("start", stored(tmp_path / "wheels", store), store, "F", print)
    done = subprocess.run([python.with_name("shade")], capture_output=True, text=True, check=True)
    assert done.stdout == "called\n"


def test_a_package_that_was_named_by_a_file_is_installed_whatever_version_the_image_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import version

    monkeypatch.chdir(tmp_path)
    store = FolderStore(str(tmp_path / "store"))
    data = make_wheel(tmp_path, "click", version("click"), {"click.py": "OWN = True\n"}).read_bytes()
    blob = hashlib.sha256(data).hexdigest()
    ArtifactStore(store, "F").save_blob(blob, [data])
    stored_wheel = StoredWheel("click", version("click"), "click-py3-none-any.whl", blob, is_direct=True)
    python = installed("start", Lock((), PYTHON, "linux", "", (stored_wheel,)), store, "F", print)
    done = subprocess.run([python, "-c", "import click; print(click.OWN)"], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_wheels_for_another_architecture_are_refused_before_the_step(tmp_path: Path) -> None:
    wheel = StoredWheel("x", "1.0", "x-1.0-cp311-cp311-manylinux_2_28_s390x.whl", "0" * 64)
    lock = Lock((), PYTHON, "s390x-manylinux_2_28", "", (wheel,))
    with pytest.raises(DependencyError, match="are locked for s390x, and this machine is"):
        installed("start", lock, FolderStore(str(tmp_path)), "F", print)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("evil-1.0.data/scripts/python", "#!python\n"),
        ("evil-1.0.data/data/bin/python", ""),
        ("evil-1.0.data/data/pyvenv.cfg", ""),
        ("evil-1.0.dist-info/entry_points.txt", "[console_scripts]\npython = evil:main\n"),
        ("evil-1.0.dist-info/entry_points.txt", "[console_scripts]\n../../x = evil:main\n"),
        ("../x.py", ""),
    ],
)
def test_a_wheel_can_not_replace_the_interpreter_or_leave_its_folder(tmp_path: Path, file: str, text: str) -> None:
    base = tmp_path / "image-python"
    base.write_text("the interpreter of the image")
    site, scripts = tmp_path / "e/lib/python3/site-packages", tmp_path / "e/bin"
    site.mkdir(parents=True)
    scripts.mkdir()
    (scripts / "python").symlink_to(base)
    data = make_wheel(tmp_path / "wheels", "evil", "1.0", {"evil.py": "", file: text}).read_bytes()
    with pytest.raises(StorageError, match="a wheel "):
        unpack(io.BytesIO(data), site, scripts)
    assert base.read_text() == "the interpreter of the image"
    assert not (tmp_path / "x").exists()


def test_a_package_whose_name_ends_like_the_data_folder_of_wheels_is_a_package(tmp_path: Path) -> None:
    files = {"some.data/scripts/x.py": "", "shade-1.0.data/data/share/x": ""}
    data = make_wheel(tmp_path / "wheels", "shade", "1.0", files).read_bytes()
    site = tmp_path / "e/lib/python3/site-packages"
    unpack(io.BytesIO(data), site, tmp_path / "e/bin")
    assert (site / "some.data/scripts/x.py").exists()
    assert (tmp_path / "e/share/x").exists()
