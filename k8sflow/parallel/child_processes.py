"""Processes that a worker starts: they end with it, and joblib starts none.

Each worker leads a process group of its own, which its parent kills; `process_tree` finds processes outside the group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PROCESS_MODULE = "multiprocessing.process"
_LOKY = ("joblib.externals.loky", "loky")
_parents_executors: list[object] = []  # kept alive, since deleting them would wake them up


def lead_process_group() -> None:
    """Makes this process the leader of a new process group.

    It is then a background process: reading the terminal is an error instead of a stop from which nothing wakes it.
    """
    if not hasattr(os, "setpgid"):  # Windows
        return
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setpgid(0, 0)
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


def kill_process_group(leader: int) -> None:
    """Kills a worker and the processes that it started, if it leads its group already."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError for zombies
            os.killpg(leader, signal.SIGKILL)


def mark_as_daemon() -> None:
    """Makes this process a daemon in the view of multiprocessing, now or when that is imported.

    joblib checks that, and then works sequentially. The function may still start processes and pools of its own.

    Executors, resource trackers and fork servers of the parent are forgotten: this process starts its own when it needs
    them, and they end with the call.
    """
    if (process := sys.modules.get(_PROCESS_MODULE)) is not None:
        _mark(process)
    else:
        sys.meta_path.insert(0, _DaemonFinder())
    for name in _LOKY:
        loky = sys.modules.get(f"{name}.reusable_executor")
        if getattr(loky, "_executor", None) is not None:  # its threads aren't in this process
            _parents_executors.append(loky._executor)  # type: ignore[union-attr]  # noqa: SLF001
            loky.__dict__["_executor"] = None
        if tracker := getattr(sys.modules.get(f"{name}.backend.resource_tracker"), "_resource_tracker", None):
            tracker.__dict__.update(_fd=None, _pid=None)
    if (server := getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)) is not None:
        server.__dict__.update(_forkserver_alive_fd=None, _forkserver_address=None, _forkserver_pid=None)


def _mark(process: ModuleType) -> None:
    with contextlib.suppress(AttributeError):  # another thread of the parent was still importing it
        current = process.current_process()  # a flag in its _config would forbid children
        current.__class__ = type("ParallelMapWorker", (type(current),), {"daemon": True})


class _DaemonFinder:
    """Finds `multiprocessing.process` as Python does, and marks this process once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _PROCESS_MODULE:
            return None
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_and_mark(module: ModuleType) -> None:
                execute(module)
                _mark(module)

            loader.exec_module = exec_and_mark
        return spec
