"""Cgroups for single tests, with limits that the kernel enforces; creating them needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k8sflow.parallel.limits import cgroup_folders
from tests.support import environment


class Cgroup:
    """A cgroup for one test, v2 where its controller is available, else v1."""

    def __init__(self, controller: str, name: str) -> None:
        inner = cgroup_folders(controller)[0]
        self.version = 2 if Path(inner, "cgroup.procs").exists() and "cgroup.controllers" in os.listdir(inner) else 1
        self.folder = Path(inner, name)
        self.folder.mkdir()

    def write(self, file: str, value: object, *, inner: str = "") -> None:
        (self.folder / inner / file).write_text(str(value))

    def run(self, code: str, *, inner: str = "") -> str:
        """Return the output of a script that runs within."""
        join = f"open({str(self.folder / inner / 'cgroup.procs')!r}, 'w').write('0')\n"
        done = subprocess.run(
            [sys.executable, "-c", join + code],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self) -> None:
        for folder in sorted(self.folder.rglob("*/"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        self.folder.rmdir()


@contextmanager
def limited_memory(mebibytes: int) -> Iterator[Cgroup]:
    """Create a cgroup with a limit of memory."""
    group = Cgroup("memory", f"k8sflow-test-{os.getpid()}")
    try:
        group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", mebibytes * 2**20)
        yield group
    finally:
        group.remove()
