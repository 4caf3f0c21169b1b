"""Installs a step's packages in its pod, from the wheels that the driver has put into the bucket."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO

from k8sflow import units
from k8sflow.environments.lock import Lock, StoredWheel
from k8sflow.errors import DependencyError, StorageError
from k8sflow.storage.artifacts import blob_key
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.written import get_written

FOLDER = "environment"
_AT_A_TIME = 4  # each is in memory until it is in a file


def installed(step: str, lock: Lock, store: ObjectStore, flow: str, say: Callable[[str], None]) -> Path:
    """The interpreter in which a step runs: that of the image, if it has the packages, or that of a new environment.

    Args:
        step: The step.
        lock: Its packages.
        store: The bucket.
        flow: The flow, among whose blobs the wheels are.
        say: Takes a line for the log.

    Raises:
        DependencyError: The image has another Python.
        StorageError: A wheel can't be read, or is damaged.
    """
    running = sys.version_info
    version = f"{running.major}.{running.minor}.{running.micro}"
    if not f"{version}.".startswith(f"{lock.python}."):
        raise DependencyError(
            f"the packages of step {step} are locked for Python {lock.python}, and the image has Python {version}.",
            advice=f'Write @pypi(python="{running.major}.{running.minor}"), or use an image with Python {lock.python}.',
        )
    if all(_version(wheel.name) == wheel.version and not wheel.is_direct for wheel in lock.files):
        return Path(sys.executable)
    _check_platform(step, lock)
    before = time.monotonic()
    root = Path(FOLDER).absolute()
    python = _new_environment(root)
    site = root / "lib" / f"python{running.major}.{running.minor}" / "site-packages"
    site.mkdir(parents=True)
    (site / "_k8sflow.pth").write_text(f"{Path(__file__).parents[3]}\n", encoding="utf-8")

    def install(wheel: StoredWheel) -> None:
        data = get_written(store, blob_key(flow, wheel.blob))
        if hashlib.sha256(data).hexdigest() != wheel.blob:
            raise StorageError(f"the wheel {wheel.file} in {store.url} is damaged: its sha256 is another one.")
        file = root / wheel.blob
        file.write_bytes(data)
        del data  # it may be as large as the step's memory allows
        unpack(file, site, root / "bin")
        file.unlink()

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(install, lock.files))
    say(f"installed {units.count(len(lock.files), 'package')} in {time.monotonic() - before:.1f} s")
    return python


def _check_platform(step: str, lock: Lock) -> None:
    """Refuses a pod for which the wheels were not made: their import would fail with an obscure error.

    Raises:
        DependencyError: It has another architecture or C library.
    """
    if all(wheel.file.endswith("-none-any.whl") for wheel in lock.files):
        return
    machine = os.uname().machine
    if lock.platform.endswith("-manylinux_2_28") and not lock.platform.startswith(f"{machine}-"):
        locked = lock.platform.partition("-")[0]
        raise DependencyError(
            f"the packages of step {step} are locked for {locked}, and this machine is {machine}.",
            advice="Choose nodes by node_selector={'kubernetes.io/arch': 'amd64'}, or 'arm64'; for @batch, a queue.",
        )
    if (sysconfig.get_config_var("SOABI") or "").endswith("musl"):
        raise DependencyError(
            f"the packages of step {step} are locked for glibc, and the image has musl.",
            advice="Use an image with glibc, such as python:3.12-slim in place of python:3.12-alpine.",
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _new_environment(root: Path) -> Path:
    """An environment without packages (https://docs.python.org/3/library/venv.html); its interpreter."""
    base = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    (root / "bin").mkdir(parents=True)
    lines = [f"home = {os.path.dirname(base)}", "include-system-site-packages = false"]  # noqa: PTH120  a text
    (root / "pyvenv.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("python", "python3"):
        (root / "bin" / name).symlink_to(base)
    return root / "bin" / "python"


def unpack(wheel: Path | IO[bytes], site: Path, scripts: Path) -> None:
    """Installs a wheel (https://packaging.python.org/specifications/binary-distribution-format/).

    Args:
        wheel: The wheel, or its file.
        site: The folder of packages.
        scripts: The folder of programs.
    """
    with zipfile.ZipFile(wheel) as archive:
        own, folders = _data_folder(archive.namelist()), set[Path]()
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            target = _target(PurePosixPath(entry.filename), own, site, scripts)
            if (parent := target.parent) not in folders:
                parent.mkdir(parents=True, exist_ok=True)
                folders.add(parent)
            _refuse_own(target, scripts)
            with archive.open(entry) as source, target.open("wb") as file:
                first = source.readline() if parent == scripts else b""
                file.write(_first_line(scripts).encode() if first.startswith(b"#!python") else first)
                shutil.copyfileobj(source, file)
            if parent == scripts or entry.external_attr >> 16 & 0o111:
                target.chmod(0o755)
            if target.name == "entry_points.txt" and parent.suffix == ".dist-info":
                _write_programs(target.read_text(encoding="utf-8"), scripts)


def _data_folder(names: list[str]) -> str:
    """The folder of a wheel whose files belong elsewhere; a package may have a similar name."""
    found = [name.partition("/")[0] for name in names if name.endswith(".dist-info/WHEEL") and name.count("/") == 1]
    return f"{found[0].removesuffix('.dist-info')}.data" if found else ""


def _refuse_own(target: Path, scripts: Path) -> None:
    """Refuses to write what the environment itself consists of: its interpreter is a link to that of the image.

    Raises:
        StorageError: The file is such a one.
    """
    if target.is_symlink() or target == scripts.parent / "pyvenv.cfg":
        raise StorageError(f"a wheel has a file that belongs to the environment itself: {target.name}.")


def _target(name: PurePosixPath, own: str, site: Path, scripts: Path) -> Path:
    """The file into which an entry of a wheel is unpacked."""
    if name.is_absolute() or ".." in name.parts:
        raise StorageError(f"a wheel names a file outside of its folder: {name}.")
    first, *rest = name.parts
    if first != own or not rest:
        return site / name
    kind, *inner = rest
    if kind == "scripts":
        return scripts.joinpath(*inner)
    if kind in {"purelib", "platlib"}:
        return site.joinpath(*inner)
    return site.parents[2].joinpath(*(("include", *inner) if kind == "headers" else inner))


def _write_programs(text: str, scripts: Path) -> None:
    for name, module, attribute in _programs(text):
        code = f"import sys\nfrom {module} import {attribute.partition('.')[0]}\nsys.exit({attribute}())\n"
        if name != PurePosixPath(name).name:
            raise StorageError(f"a wheel names a program outside of its folder: {name}.")
        _refuse_own(scripts / name, scripts)
        (scripts / name).write_text(_first_line(scripts) + code, encoding="utf-8")
        (scripts / name).chmod(0o755)


def _first_line(scripts: Path) -> str:
    return f"#!{scripts / 'python'}\n"


def _programs(text: str) -> Iterator[tuple[str, str, str]]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    parser.read_string(text)
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            module, _, attribute = value.partition("[")[0].strip().partition(":")
            if attribute:
                yield name.strip(), module.strip(), attribute.strip()
