"""This process's cgroups, v1 and v2: where their files are, and what they say."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from .refusals import refusals_ignored


def cgroup_folders(controller: str, proc: str = "/proc/self") -> list[str]:
    """The folders of this process's cgroup for a controller, innermost first, up to the mount; cgroup v1 and v2.

    Format of /proc/self/cgroup: cgroups(7); of mountinfo: proc(5). In a container the mount's root may be the
    container's own cgroup, which is then cut from the path.
    """
    return _folders_within(controller, tuple(lines_of(f"{proc}/cgroup")), f"{proc}/mountinfo")


@functools.lru_cache(maxsize=16)
def _folders_within(controller: str, membership: tuple[str, ...], mountinfo: str) -> list[str]:
    paths = {}  # "" (v2) or a v1 controller → path within the hierarchy
    for line in membership:
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    folders = []
    for line in lines_of(mountinfo):
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        kind, _, options = right.split(None, 2)
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        inner = os.path.relpath(paths[name], root).split("/")
        parts = [part for part in inner if part not in ("", ".", "..")]
        folders += ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return folders


def lines_of(path: str) -> list[str]:
    text = ""
    with refusals_ignored():  # not Linux, not this cgroup version, or hidden from us: it sets no limit we could know
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    return text.splitlines()


def words_of(path: str) -> list[str]:
    return " ".join(lines_of(path)).split()
