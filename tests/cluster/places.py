"""The folders of the harness, and the keys of their content.

All of them are in the user's cache folder, so that a fresh clone re-uses what another one built:

    ~/.cache/k8sflow/
      programs/<name>-<key>/    Go programs, built from the modules pinned in tools/
      rootfs/<name>-<key>.tar   Debian root file systems
      docker/                   data of the harness's own engine
      cluster/                  kubeconfig, environment and state of the cluster
      work/                     incomplete work; anything in it may be deleted
    /run/k8sflow-<key>/         sockets and pid files of that engine
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
KEY_LENGTH = 12


@dataclass(frozen=True)
class Places:
    """The folders of the harness, all below one cache folder."""

    root: Path

    @classmethod
    def of_user(cls) -> Places:
        """Return ``$XDG_CACHE_HOME/k8sflow``, else ``~/.cache/k8sflow``."""
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return cls(Path(home).expanduser().resolve() / "k8sflow")

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    @property
    def rootfs(self) -> Path:
        return self.root / "rootfs"

    @property
    def docker(self) -> Path:
        return self.root / "docker"

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def run(self) -> Path:
        """Return the folder of the engine's sockets and pid files: /run is emptied at boot, and has short paths."""
        return Path("/run") / f"k8sflow-{key_of(str(self.root))[:8]}"


def key_of(*parts: str | bytes) -> str:
    """Return a short name for a list of texts: different lists have different names."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:KEY_LENGTH]


def key_of_files(files: Iterable[Path], relative_to: Path, *more: str) -> str:
    """Return a short name for the content of files, their names and modes, and further texts."""
    parts: list[str | bytes] = list(more)
    for file in sorted(files):
        parts += [file.relative_to(relative_to).as_posix(), oct(file.stat().st_mode & 0o111), file.read_bytes()]
    return key_of(*parts)


def files_below(folder: Path) -> list[Path]:
    """List every file below ``folder`` that may be part of an image: no byte code, nothing hidden."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.suffix != ".pyc"
        and not any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(folder).parts)
    ]


@contextmanager
def new_folder(places: Places, name: str) -> Iterator[Path]:
    """Create a folder for incomplete work on the cache's file system, and remove it in any case."""
    places.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=places.work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
