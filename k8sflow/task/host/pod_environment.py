"""Completes a pod's environment before the user's code runs, in any image."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from k8sflow.flow.decorators.environment import PODS_PYTHONPATH, python_path

NAME = "k8sflow"
# The user's own PYTHONPATH: under its real name it would replace that of the image.
USERS_PYTHONPATH = "K8SFLOW_PYTHONPATH"


def complete() -> None:
    """Gives this process, and what it starts, a module path and a user with a name."""
    _extend_path()
    name_user()


def _extend_path() -> None:
    """Joins the runtime's folder, the user's PYTHONPATH and the image's, for this process and its children."""
    users = os.environ.pop(USERS_PYTHONPATH, "")
    runtime = str(Path(__file__).parents[3])
    # The image's are on sys.path already: the interpreter has read them.
    position = sys.path.index(runtime) + 1 if runtime in sys.path else 0
    sys.path[position:position] = [part for part in users.split(os.pathsep) if part and part not in sys.path]
    pods = os.pathsep.join([runtime, os.environ.get("PYTHONPATH", "")])
    os.environ[PODS_PYTHONPATH] = pods
    os.environ["PYTHONPATH"] = python_path(users, pods)


def name_user() -> None:
    """Sets USER and LOGNAME, and adds entries for this user and its group where the image's files have none.

    They are known to Python code in this process and its forks, but not to other programs, such as whoami and ssh,
    nor to a Python that the task starts. A file can't be changed without root, mounting another one would hide the
    image's own users, and nss_wrapper, which would stand in for the file, is not in images.
    """
    import pwd  # noqa: PLC0415  not on Windows, where pods are described but never run

    uid, gid = os.getuid(), os.getgid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = os.environ.get("USER") or os.environ.get("LOGNAME") or NAME
        home = os.environ.get("HOME") or "/"
        _add_entry(
            pwd, "getpwuid", "getpwnam", "getpwall", pwd.struct_passwd((name, "x", uid, gid, NAME, home, "/bin/sh"))
        )
    name = os.environ.get("USER") or name
    for variable in ("USER", "LOGNAME"):
        if not os.environ.get(variable):
            os.environ[variable] = name
    _name_group()


def _name_group() -> None:
    import grp  # noqa: PLC0415  as above

    gid = os.getgid()
    try:
        grp.getgrgid(gid)
    except KeyError:
        _add_entry(grp, "getgrgid", "getgrnam", "getgrall", grp.struct_group((NAME, "x", gid, [])))


def _add_entry(module: Any, by_id: str, by_name: str, all_: str, entry: Any) -> None:
    """Lets the three functions of ``pwd`` or ``grp`` find an entry that the system's files don't have."""
    name, number = entry[0], entry[2]

    def with_entry(find: Any, key: object) -> Any:
        def found(wanted: object) -> Any:
            try:
                return find(wanted)
            except KeyError:
                if wanted == key:
                    return entry
                raise

        return found

    listed = getattr(module, all_)
    setattr(module, by_id, with_entry(getattr(module, by_id), number))
    setattr(module, by_name, with_entry(getattr(module, by_name), name))
    setattr(module, all_, lambda: [*listed(), entry])
