"""Programs for Node.js: each pinned by a package-lock.json in tools/, installed once, and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster import host
from tests.cluster.console import step
from tests.cluster.errors import ClusterError
from tests.cluster.locks import held
from tests.cluster.places import Places, key_of_files, new_folder
from tests.cluster.process import run
from tests.cluster.programs import TOOLS

AZURITE = "azurite"


def ensure(name: str, places: Places) -> Path:
    """Return the folder of a program, whose packages are in its node_modules; install them if necessary."""
    pinned = TOOLS / name
    files = [pinned / file for file in ("package.json", "package-lock.json")]
    folder = places.programs / f"{name}-{key_of_files(files, pinned)}"
    if not folder.exists():
        with held(places.programs / f".{name}.lock", f"installs {name}"):
            if not folder.exists():  # two processes of the tests may need it at once
                _install(name, files, places, folder)
    return folder


def node() -> str:
    """Return the command of Node.js; install it if it is missing."""
    return _found("node", "nodejs")


def _install(name: str, files: list[Path], places: Places, folder: Path) -> None:
    node()
    npm = _found("npm", "npm")
    with new_folder(places, name) as new, step(f"installing {name}"):
        for file in files:
            shutil.copy(file, new)
        run(
            [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            doing=f"install {name}",
            advice="npm takes the packages from its registry; see that `npm view azurite` works.",
            folder=new,
            timeout_seconds=1800,
        )
        new.rename(folder)


def _found(command: str, package: str) -> str:
    if shutil.which(command) is None:
        host.install([package], doing=f"install {command}")
    found = shutil.which(command)
    if found is None:
        raise ClusterError(
            f"there is no {command} on this machine.",
            cause="Azurite, the emulator of Azure's storage, is a program for Node.js.",
            advice="Install Node.js 18 or newer, with npm.",
        )
    return found
